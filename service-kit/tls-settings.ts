import { isLoopbackList } from './client-transport.ts'
import { path, type Setting, setting } from './config.ts'
import { isLoopback } from './listen-address.ts'
import type { TlsFiles } from './tls.ts'

/** The settings of mutual TLS between services; all of them or none. */
export interface TlsConfig {
  readonly tlsCertFile: string | undefined
  readonly tlsKeyFile: string | undefined
  readonly tlsCaFile: string | undefined
}

/** The three settings for a service whose variables begin with `prefix`: `EDGE_`. */
export function tlsSettings(prefix: string): { readonly [K in keyof TlsConfig]: Setting<TlsConfig[K]> } {
  return {
    tlsCertFile: setting(`${prefix}TLS_CERT_FILE`, path(), {
      optional: true,
      doc: 'Certificate chain (PEM) that this service shows to others, as server and as client. With it all calls between services are mutual TLS. Read again when it changes, and at SIGHUP.',
    }),
    tlsKeyFile: setting(`${prefix}TLS_KEY_FILE`, path(), {
      optional: true,
      doc: 'Private key (PEM, without passphrase) that belongs to the certificate.',
    }),
    tlsCaFile: setting(`${prefix}TLS_CA_FILE`, path(), {
      optional: true,
      doc: 'Certificates (PEM) of the authorities that others must be certified by.',
    }),
  }
}

/** What is wrong between the three, as lines for the operator. */
export function tlsProblems(prefix: string, config: TlsConfig): string[] {
  const all = { TLS_CERT_FILE: config.tlsCertFile, TLS_KEY_FILE: config.tlsKeyFile, TLS_CA_FILE: config.tlsCaFile }
  const missing = Object.entries(all).flatMap(([name, value]) => (value === undefined ? [name] : []))
  if (missing.length === 0 || missing.length === 3) return []
  return missing.map((name) => `${prefix}${name} is missing; TLS needs certificate, key and authorities, or none of them`)
}

/** The files, each with the setting that names it; undefined where there is no TLS. */
export function tlsFilesOf(prefix: string, { tlsCertFile, tlsKeyFile, tlsCaFile }: TlsConfig): TlsFiles | undefined {
  if (tlsCertFile === undefined || tlsKeyFile === undefined || tlsCaFile === undefined) return undefined
  return {
    certificate: { setting: `${prefix}TLS_CERT_FILE`, path: tlsCertFile },
    key: { setting: `${prefix}TLS_KEY_FILE`, path: tlsKeyFile },
    authorities: { setting: `${prefix}TLS_CA_FILE`, path: tlsCaFile },
  }
}

/** What a service listens at and dials, by the settings that say so. */
export interface Exposure {
  /** Served and dialled over TLS where there is TLS. */
  readonly protected: Readonly<Record<string, string | undefined>>
  /** Plain text whatever is set: metrics. */
  readonly plain?: Readonly<Record<string, string | undefined>>
}

/** Where plain text would leave this machine though nobody has allowed it, as lines for the operator. */
export function plainTextProblems(
  prefix: string,
  exposure: Exposure,
  config: TlsConfig & { readonly insecure: boolean },
): string[] {
  if (config.insecure) return []
  const named = (addresses: Exposure['protected'], remedy: string) =>
    Object.entries(addresses).flatMap(([name, address]) =>
      address === undefined || isLoopbackListenOrDial(address)
        ? []
        : [
            `${name} is "${address}", where anybody could read along; use a loopback address, ${remedy}set ${prefix}INSECURE=true`,
          ],
    )
  return [
    ...(config.tlsCertFile === undefined ? named(exposure.protected, `${prefix}TLS_CERT_FILE with its key, or `) : []),
    ...named(exposure.plain ?? {}, 'or '),
  ]
}

function isLoopbackListenOrDial(address: string): boolean {
  return isLoopback(address) || isLoopbackList(address)
}
