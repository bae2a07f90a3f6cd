import { type ServiceTransport, serviceTransport } from './client-transport.ts'
import type { Clock } from './clock.ts'
import type { Closers } from './closers.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { PeerIdentity, Role } from './peer-identity.ts'
import type { Reloads } from './reloads.ts'
import { openTls, type Tls } from './tls.ts'
import { type TlsConfig, tlsFilesOf } from './tls-settings.ts'

/** How a service serves and calls others. */
export interface ServiceSecurity {
  /** Undefined: plain text. */
  readonly tls: Tls | undefined
  readonly transport: ServiceTransport
}

/** What `openServiceSecurity` takes. */
export interface ServiceSecurityOptions {
  /** What the variables of the service begin with: `EDGE_`. */
  readonly prefix: string
  readonly config: TlsConfig & { readonly insecure: boolean }
  /** The role that the service's certificate must have. */
  readonly role: Role
  /** For an edge: the name that its certificate must have. */
  readonly edgeName?: string
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly reloads?: Reloads | undefined
  /** The files are let go of here. */
  readonly closers: Closers
}

/** Opens the certificate of a service where it has one. Throws StartError when it is not that of this service, or cannot be used. */
export function openServiceSecurity(options: ServiceSecurityOptions): ServiceSecurity {
  const { prefix, config, role, edgeName, closers, ...parts } = options
  const files = tlsFilesOf(prefix, config)
  if (files === undefined) return { tls: undefined, transport: serviceTransport(undefined, config.insecure) }
  const tls = openTls({ ...parts, files, check: (identity) => problemOf(identity, role, edgeName) })
  closers.add('tls files', () => tls.close())
  return { tls, transport: serviceTransport(tls, config.insecure) }
}

function problemOf({ roles, edgeNames }: PeerIdentity, role: Role, edgeName: string | undefined): string | undefined {
  const missing = (uri: string) =>
    `whose certificate is not for this service: it needs the URI ${uri} among its subject alternative names`
  if (!roles.includes(role)) return missing(`push:role:${role}`)
  if (edgeName !== undefined && !edgeNames.includes(edgeName)) return missing(`push:edge:${edgeName}`)
  return undefined
}
