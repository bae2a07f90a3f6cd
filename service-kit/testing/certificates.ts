// Makes certificates without any tool outside this project, for `npm run certs` and for tests. Not for production: the authority's key lies in a file.
import 'reflect-metadata'
import { webcrypto } from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'

/** A certificate with its private key, as PEM text. */
export interface CertificatePair {
  readonly certificate: string
  readonly key: string
}

/** What a certificate says of its holder. */
export interface CertificateOrder {
  /** For people to read. */
  readonly commonName: string
  /** URIs of the subject alternative name: `push:role:edge`. */
  readonly uris?: readonly string[]
  /** Host names and IP addresses at which the holder is reached. Default: localhost, 127.0.0.1 and ::1. */
  readonly hosts?: readonly string[]
  /** From when to when it holds, in ms since the epoch. Default: from an hour ago, for 90 days. */
  readonly notBeforeMs?: number
  readonly notAfterMs?: number
}

/** Signs certificates. */
export interface CertificateAuthority extends CertificatePair {
  issue(order: CertificateOrder): Promise<CertificatePair>
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const hour = 3_600_000
const day = 24 * hour
/** So that a clock that is a little behind takes it all the same. */
const leewayMs = hour
const lifeMs = 90 * day
const authorityLifeMs = 3_650 * day

/** Makes a new authority that signs itself. */
export async function createAuthority(nowMs: number, commonName = 'pushplane development'): Promise<CertificateAuthority> {
  const keys = await newKeys()
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${commonName}`,
    keys,
    notBefore: dateOf(nowMs - leewayMs),
    notAfter: dateOf(nowMs + authorityLifeMs),
    signingAlgorithm: algorithm,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return openAuthority({ certificate: certificate.toString('pem'), key: await pemOf(keys.privateKey) }, nowMs)
}

/** The authority of an earlier call, from what was kept of it. */
export async function openAuthority(kept: CertificatePair, nowMs: number): Promise<CertificateAuthority> {
  const authority = new X509Certificate(kept.certificate)
  const signingKey = await webcrypto.subtle.importKey('pkcs8', PemConverter.decodeFirst(kept.key), algorithm, false, ['sign'])
  return {
    ...kept,
    async issue({ commonName, uris = [], hosts = ['localhost', '127.0.0.1', '::1'], notBeforeMs, notAfterMs }) {
      const keys = await newKeys()
      const certificate = await X509CertificateGenerator.create({
        subject: `CN=${commonName}`,
        issuer: authority.subject,
        publicKey: keys.publicKey,
        signingKey,
        notBefore: dateOf(notBeforeMs ?? nowMs - leewayMs),
        notAfter: dateOf(notAfterMs ?? nowMs + lifeMs),
        signingAlgorithm: algorithm,
        extensions: [
          new BasicConstraintsExtension(false, undefined, true),
          new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
          await SubjectKeyIdentifierExtension.create(keys.publicKey),
          // Tells two authorities of one name apart, as they stand side by side while one replaces the other.
          await AuthorityKeyIdentifierExtension.create(authority.publicKey),
          new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth, ExtendedKeyUsage.clientAuth]),
          new SubjectAlternativeNameExtension([
            ...hosts.map((host) => ({ type: isAddress(host) ? ('ip' as const) : ('dns' as const), value: host })),
            ...uris.map((uri) => ({ type: 'url' as const, value: uri })),
          ]),
        ],
      })
      return { certificate: certificate.toString('pem'), key: await pemOf(keys.privateKey) }
    },
  }
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
}

async function pemOf(key: webcrypto.CryptoKey): Promise<string> {
  return `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), 'PRIVATE KEY')}\n`
}

function isAddress(host: string): boolean {
  return host.includes(':') || /^[\d.]+$/.test(host)
}

function dateOf(ms: number): Date {
  return new Date(ms)
}
