import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import type { experimental } from '@grpc/grpc-js'
import type { Clock, Timer } from './clock.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { type NamedFile, wrongFile } from './named-file.ts'
import { identityOfAltName, type PeerIdentity } from './peer-identity.ts'
import type { Reloads } from './reloads.ts'
import { watchFiles } from './watched-files.ts'

/** Where certificate, key and authorities lie. A client without a certificate of its own has authorities only. */
export interface TlsFiles {
  readonly certificate: NamedFile
  readonly key: NamedFile
  readonly authorities: NamedFile
}

/** What servers and clients show and believe, kept up to date. New connections use what is in force when they open; open ones stay. */
export interface Tls {
  /** For grpc-js; the same for servers and clients. */
  readonly provider: experimental.CertificateProvider
  /** What the own certificate says. */
  readonly identity: PeerIdentity
  /** Looks at the files now. Never rejects. */
  look(): Promise<void>
  close(): void
}

/** What `openTls` takes. */
export interface TlsOptions {
  readonly files: TlsFiles
  /** What is wrong with a certificate for this service, as the rest of a sentence that begins with its file; undefined: nothing. */
  readonly check?: (identity: PeerIdentity) => string | undefined
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly reloads?: Reloads | undefined
  /** How often the files are looked at, in ms. Default 10 000. */
  readonly periodMs?: number
}

interface TlsMaterial {
  readonly certificate: Buffer
  readonly key: Buffer
  readonly authorities: Buffer
  readonly identity: PeerIdentity
  readonly validFromMs: number
  readonly expireTimeMs: number
  /** The same for people to read. */
  readonly expireTime: string
}

/** An operator is warned when a quarter of the certificate's life is left, at most this long before its end, in ms. */
const warnBeforeMaxMs = 7 * 24 * 3_600_000

/**
 * Reads certificate, key and authorities, checks that they can be used, and keeps them up to date: new files that do not hold are told and
 * counted, and the old ones stay in force. A certificate that nobody renews is told before it expires, and when it has: connections that are
 * open live on then, and new ones are refused by the other side. Throws StartError with what is wrong.
 */
export function openTls(options: TlsOptions): Tls {
  const { files, check, clock, log, metrics, reloads, periodMs } = options
  const expiry = metrics.gauge(
    'push_tls_certificate_expire_time_seconds',
    'When the certificate in force expires, in seconds since the epoch',
  )
  const updates = createUpdates()
  const watched = watchFiles({
    name: 'tls certificate',
    files: [files.certificate, files.key, files.authorities],
    parse: ([certificate, key, authorities]) => {
      if (!certificate || !key || !authorities) throw new Error('three files were to be read')
      return checkMaterial(files, { certificate, key, authorities }, check, clock.now())
    },
    onChange: use,
    clock,
    log,
    metrics,
    reloads,
    ...(periodMs !== undefined && { periodMs }),
  })
  let expiryTimer: Timer | undefined
  use(watched.value)

  function use(material: TlsMaterial): void {
    expiry.set(material.expireTimeMs / 1_000)
    updates.set(material)
    expiryTimer?.cancel()
    watchExpiry(material)
  }

  function watchExpiry({ validFromMs, expireTimeMs, expireTime }: TlsMaterial): void {
    const facts = { path: files.certificate.path, expire_time: expireTime }
    const after = (untilMs: number, run: () => void) => {
      expiryTimer = clock.after(untilMs - clock.now(), run)
    }
    after(expireTimeMs - Math.min(warnBeforeMaxMs, (expireTimeMs - validFromMs) / 4), () => {
      log.warn('tls certificate expires soon, and no newer one is there', facts)
      after(expireTimeMs, () =>
        log.error('tls certificate has expired: new connections are refused until a newer one is there', facts),
      )
    })
  }

  return {
    provider: updates.provider,
    get identity() {
      return watched.value.identity
    },
    look: watched.look,
    close() {
      expiryTimer?.cancel()
      watched.close()
    },
  }
}

/** Hands certificates to grpc-js, which wants each listener told of what there is, though not at once. */
function createUpdates() {
  const authorityListeners = new Set<experimental.CaCertificateUpdateListener>()
  const identityListeners = new Set<experimental.IdentityCertificateUpdateListener>()
  let authority: experimental.CaCertificateUpdate | undefined
  let identity: experimental.IdentityCertificateUpdate | undefined
  const provider: experimental.CertificateProvider = {
    addCaCertificateListener(listener) {
      authorityListeners.add(listener)
      process.nextTick(() => authority !== undefined && authorityListeners.has(listener) && listener(authority))
    },
    removeCaCertificateListener: (listener) => void authorityListeners.delete(listener),
    addIdentityCertificateListener(listener) {
      identityListeners.add(listener)
      process.nextTick(() => identity !== undefined && identityListeners.has(listener) && listener(identity))
    },
    removeIdentityCertificateListener: (listener) => void identityListeners.delete(listener),
  }
  return {
    provider,
    set({ certificate, key, authorities }: TlsMaterial): void {
      authority = { caCertificate: authorities }
      identity = { certificate, privateKey: key }
      for (const listener of authorityListeners) listener(authority)
      for (const listener of identityListeners) listener(identity)
    },
  }
}

function checkMaterial(
  files: TlsFiles,
  contents: { readonly certificate: Buffer; readonly key: Buffer; readonly authorities: Buffer },
  check: TlsOptions['check'],
  nowMs: number,
): TlsMaterial {
  const { leaf, validFromMs, expireTimeMs } = checkCertificate(files, contents, nowMs)
  readCertificates(contents.authorities, files.authorities)
  const identity = identityOfAltName(leaf.subjectAltName)
  const problem = check?.(identity)
  if (problem !== undefined) throw wrongFile(files.certificate, problem)
  requireUsable(files.certificate, { ca: contents.authorities, cert: contents.certificate, key: contents.key })
  return { ...contents, identity, validFromMs, expireTimeMs, expireTime: leaf.validToDate.toISOString() }
}

/** The certificate at the head of a chain. Throws StartError when it does not hold now, or not with that key. */
export function checkCertificate(
  files: { readonly certificate: NamedFile; readonly key: NamedFile },
  contents: { readonly certificate: Buffer; readonly key: Buffer },
  nowMs: number,
): { readonly leaf: X509Certificate; readonly validFromMs: number; readonly expireTimeMs: number } {
  const [leaf] = readCertificates(contents.certificate, files.certificate)
  const key = readKey(contents.key, files.key)
  if (!leaf.checkPrivateKey(key))
    throw wrongFile(files.key, `which does not belong to the certificate in ${files.certificate.path}`)
  const validFromMs = leaf.validFromDate.getTime()
  const expireTimeMs = leaf.validToDate.getTime()
  if (expireTimeMs <= nowMs) throw wrongFile(files.certificate, `whose certificate expired at ${leaf.validToDate.toISOString()}`)
  if (validFromMs > nowMs)
    throw wrongFile(files.certificate, `whose certificate is not valid before ${leaf.validFromDate.toISOString()}`)
  requireUsable(files.certificate, { cert: contents.certificate, key: contents.key })
  return { leaf, validFromMs, expireTimeMs }
}

function requireUsable(certificate: NamedFile, context: SecureContextOptions): void {
  try {
    createSecureContext(context)
  } catch (cause) {
    throw wrongFile(certificate, `which cannot be used with its key (${cause instanceof Error ? cause.message : 'unknown'})`)
  }
}

const pemCertificates = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g

/** All certificates of a PEM file, in its order. Throws StartError when there is none, or one that cannot be read. */
export function readCertificates(pem: Buffer, file: NamedFile): [X509Certificate, ...X509Certificate[]] {
  let found: X509Certificate[]
  try {
    found = [...pem.toString('latin1').matchAll(pemCertificates)].map(([one]) => new X509Certificate(one))
  } catch (cause) {
    throw wrongFile(file, 'which holds a certificate that cannot be read', cause)
  }
  const [first, ...others] = found
  if (first === undefined) throw wrongFile(file, 'which holds no certificate')
  return [first, ...others]
}

function readKey(pem: Buffer, file: NamedFile): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    throw wrongFile(file, 'which holds no private key that can be read; expected PEM without passphrase', cause)
  }
}
