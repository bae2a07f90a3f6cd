import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { systemClock } from '../clock.ts'
import { silentLog } from '../log.ts'
import { createMetrics } from '../metrics.ts'
import { openTls, type Tls, type TlsFiles, type TlsOptions } from '../tls.ts'
import { type CertificateAuthority, type CertificateOrder, type CertificatePair, createAuthority } from './certificates.ts'

/** An authority with a folder for what it issues. */
export interface TlsFolder {
  readonly path: string
  readonly authority: CertificateAuthority
  /** Issues a certificate with these URIs, without `push:`, and writes the three files; also over those of before. */
  issue(name: string, uris: readonly string[], more?: Partial<CertificateOrder>): Promise<TlsFiles>
  /** Writes what somebody else has issued. */
  write(name: string, pair: CertificatePair, authorities?: string): TlsFiles
  /** Issues, and opens. Closed with the folder. */
  open(name: string, uris: readonly string[], options?: Partial<TlsOptions>): Promise<Tls>
  close(): void
}

/** Makes an authority and a folder in the system's temporary one. */
export async function openTlsFolder(): Promise<TlsFolder> {
  const path = mkdtempSync(join(tmpdir(), 'push-tls-'))
  const authority = await createAuthority(Date.now())
  const opened: Tls[] = []
  const folder: TlsFolder = {
    path,
    authority,
    async issue(name, uris, more) {
      const pair = await authority.issue({ commonName: name, uris: uris.map((uri) => `push:${uri}`), ...more })
      return folder.write(name, pair)
    },
    write(name, { certificate, key }, authorities = authority.certificate) {
      const file = (setting: string, ending: string, content: string) => {
        const file = { setting, path: join(path, `${name}.${ending}`) }
        writeFileSync(file.path, content, { mode: 0o600 })
        return file
      }
      return {
        certificate: file('SAMPLE_TLS_CERT_FILE', 'crt', certificate),
        key: file('SAMPLE_TLS_KEY_FILE', 'key', key),
        authorities: file('SAMPLE_TLS_CA_FILE', 'ca', authorities),
      }
    },
    async open(name, uris, options) {
      const files = await folder.issue(name, uris)
      const tls = openTls({
        files,
        clock: systemClock,
        log: silentLog,
        metrics: createMetrics(),
        periodMs: 3_600_000,
        ...options,
      })
      opened.push(tls)
      return tls
    },
    close() {
      for (const tls of opened) tls.close()
      rmSync(path, { recursive: true })
    },
  }
  return folder
}
