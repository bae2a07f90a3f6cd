import { type NamedFile, readNamedFile } from './named-file.ts'
import { readCertificates } from './tls.ts'

/** What Node's `tls.connect` takes, to dial servers that are no services of ours. */
export interface DialTls {
  /** Unset: the authorities that Node believes. */
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
}

/** Files by the settings that name them; undefined where the setting is unset. */
export interface DialTlsFiles {
  readonly authorities: NamedFile | undefined
  readonly certificate: NamedFile | undefined
  readonly key: NamedFile | undefined
}

/** Reads them, once. Throws StartError when one cannot be used. */
export function readDialTls({ authorities, certificate, key }: DialTlsFiles): DialTls {
  return {
    ...(authorities && { ca: readPem(authorities) }),
    ...(certificate && { cert: readPem(certificate) }),
    ...(key && { key: readNamedFile(key).toString('utf8') }),
  }
}

function readPem(file: NamedFile): string {
  const content = readNamedFile(file)
  readCertificates(content, file)
  return content.toString('utf8')
}

/** What Node says of a server's certificate that it does not believe. */
const certificateCodes = /^(?:SELF_SIGNED|DEPTH_ZERO|UNABLE_TO_|CERT_|ERR_TLS_CERT|HOSTNAME_MISMATCH)/

/** Whether an error, or what caused it, says that a server's certificate is not believed. */
export function isCertificateError(error: unknown): boolean {
  for (const one of causesOf(error)) {
    if ('code' in one && typeof one.code === 'string' && certificateCodes.test(one.code)) return true
    if (/certificate/i.test(one.message)) return true
  }
  return false
}

/** The error and what caused it, as libraries chain them; at most eight deep. */
export function causesOf(error: unknown): Error[] {
  const found: Error[] = []
  let one = error
  while (one instanceof Error && found.length < 8) {
    found.push(one)
    one = 'originalError' in one && one.originalError instanceof Error ? one.originalError : one.cause
  }
  return found
}
