import type { Duplex } from 'node:stream'
import type { Clock } from '../../service-kit/clock.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import { type CertificateRules, judgeCertificate, type ShownCertificate, shownCertificate } from './client-certificate.ts'
import { type Credential, type Identity, type IdentityVerdict, notBelieved } from './identity.ts'

/** Says who is at the other end of a connection; undefined when it has shown neither certificate nor credential. */
export type DeviceJudge = (socket: Duplex, credential: Credential | undefined) => Promise<IdentityVerdict | undefined>

/** A device may show a certificate, a credential, or both: then both must hold and name the same, and the session ends with the first of them. */
export function createDeviceJudge(options: {
  /** Judges credentials. */
  readonly identity: Identity
  /** Undefined: certificates count for nothing. */
  readonly certificates: CertificateRules | undefined
  readonly clock: Pick<Clock, 'now'>
  readonly metrics: Pick<EdgeMetrics, 'certificates'>
  readonly shownOn?: (socket: Duplex) => ShownCertificate | undefined
}): DeviceJudge {
  const { identity, certificates, clock, metrics, shownOn = shownCertificate } = options
  return async (socket, credential) => {
    const shown = certificates === undefined ? undefined : shownOn(socket)
    if (certificates === undefined || shown === undefined) {
      return credential === undefined ? undefined : identity.authenticate(credential)
    }
    const certified = judgeCertificate(shown, certificates, clock.now())
    metrics.certificates.inc({ verdict: certified.ok ? 'believed' : certified.verdict })
    if (!certified.ok || credential === undefined) return certified
    const believed = await identity.authenticate(credential)
    if (!believed.ok) return believed
    if (believed.deviceId !== certified.deviceId) return notBelieved('credential and client certificate name two devices')
    if (certified.accountId !== undefined && certified.accountId !== believed.accountId)
      return notBelieved('credential and client certificate name two accounts')
    const { certificateEndsAtMs = Number.POSITIVE_INFINITY } = certified
    const expiresAtMs = Math.min(believed.expiresAtMs ?? Number.POSITIVE_INFINITY, certificateEndsAtMs)
    return { ...believed, expiresAtMs, certificateEndsAtMs }
  }
}
