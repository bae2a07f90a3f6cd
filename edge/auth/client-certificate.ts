import type { X509Certificate } from 'node:crypto'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'
import { isPushId } from '../../service-kit/ids.ts'
import { splitAltName } from '../../service-kit/peer-identity.ts'
import { type IdentityVerdict, notBelieved } from './identity.ts'

/** How a certificate names its device and account: by the entries of its subject alternative name that begin so. */
export interface CertificateRules {
  /** With the kind of the entry, as `URI:push:device:`. */
  readonly devicePrefix: string
  readonly accountPrefix: string
}

/** A certificate that a client has shown, and what TLS found wrong with it. */
export interface ShownCertificate {
  readonly certificate: Pick<X509Certificate, 'subjectAltName' | 'validToDate'>
  /** As OpenSSL calls it; undefined: nothing. */
  readonly problem: string | undefined
}

/** The client's certificate; undefined when it has shown none. */
export function shownCertificate(socket: Duplex): ShownCertificate | undefined {
  if (!(socket instanceof TLSSocket)) return undefined
  const certificate = socket.getPeerX509Certificate()
  if (certificate === undefined) return undefined
  return { certificate, problem: socket.authorized ? undefined : String(socket.authorizationError) }
}

/** Whom a certificate names. */
export function judgeCertificate(shown: ShownCertificate, rules: CertificateRules, nowMs: number): IdentityVerdict {
  const { certificate, problem } = shown
  const endsAtMs = certificate.validToDate.getTime()
  // By the edge's own clock as well: a session of TLS that is resumed is not checked again.
  if (problem === 'CERT_HAS_EXPIRED' || endsAtMs <= nowMs)
    return { ok: false, verdict: 'expired', detail: 'the client certificate has expired' }
  if (problem !== undefined) return notBelieved('the client certificate is of no authority that is believed here')
  const entries = splitAltName(certificate.subjectAltName ?? '')
  const after = (prefix: string) => entries.flatMap((entry) => (entry.startsWith(prefix) ? [entry.slice(prefix.length)] : []))
  const [deviceId, ...otherDevices] = after(rules.devicePrefix)
  const [accountId, ...otherAccounts] = after(rules.accountPrefix)
  if (deviceId === undefined || otherDevices.length > 0 || !isPushId(deviceId))
    return notBelieved('the client certificate does not name one device')
  if (otherAccounts.length > 0 || (accountId !== undefined && !isPushId(accountId)))
    return notBelieved('the client certificate names an account that is none, or several')
  return { ok: true, deviceId, accountId, expiresAtMs: endsAtMs, certificateEndsAtMs: endsAtMs }
}
