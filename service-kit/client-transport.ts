import { experimental } from '@grpc/grpc-js'
import type { ChannelCredentials } from 'nice-grpc'
import { isLoopback, parseAddressList } from './listen-address.ts'
import { edgeNameOf, identityOfAltName, type PeerIdentity, type Role } from './peer-identity.ts'
import type { Tls } from './tls.ts'

/** How a client's connections are protected. */
export type ClientTransport =
  /** Plain text, to this machine only unless `anywhere`. */
  | { readonly kind: 'plain'; readonly anywhere: boolean }
  /** `serverName` goes into the handshake, for servers that have several certificates. */
  | { readonly kind: 'tls'; readonly credentials: ChannelCredentials; readonly serverName: string }

/** Plain text would leave this machine, and nobody has allowed that. */
export class PlainTextError extends Error {
  override readonly name = 'PlainTextError'
}

/** Throws PlainTextError where calls to these addresses would cross a network that anybody could listen to. */
export function requireProtected(addresses: string, transport: ClientTransport): void {
  if (transport.kind === 'tls' || transport.anywhere || isLoopbackList(addresses)) return
  throw new PlainTextError(`calls to ${addresses} would be plain text on a network; use TLS, or allow plain text`)
}

/** Whether every address of what `connectGrpc` takes is on this machine. */
export function isLoopbackList(addresses: string): boolean {
  return (
    parseAddressList(addresses)?.every(({ host, port }) =>
      isLoopback(host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`),
    ) ?? false
  )
}

/** How a service calls others: over TLS with its own certificate where it has one, else in plain text. */
export interface ServiceTransport {
  /** To servers of this role. */
  to(role: Role): ClientTransport
  /** To the edge with this id, whose certificate must name the edge as well. */
  toEdge(edgeId: string): ClientTransport
}

/**
 * The transport of a service. A server is believed by what its certificate says it is, not by its host name: services are dialled by addresses
 * that come and go. `insecure` allows plain text beyond this machine where there is no TLS.
 */
export function serviceTransport(tls: Tls | undefined, insecure: boolean): ServiceTransport {
  if (tls === undefined) {
    const plain = { kind: 'plain', anywhere: insecure } as const
    return { to: () => plain, toEdge: () => plain }
  }
  const expecting = (serverName: string, what: string, holds: (identity: PeerIdentity) => boolean): ClientTransport => ({
    kind: 'tls',
    serverName: `${serverName}.push.internal`,
    credentials: experimental.createCertificateProviderChannelCredentials(tls.provider, tls.provider, {
      checkServerIdentity: (_host, { subjectaltname }) =>
        holds(identityOfAltName(subjectaltname)) ? undefined : new Error(`the server's certificate is not that of ${what}`),
    }),
  })
  return {
    to: (role) => expecting(role, `a ${role}`, ({ roles }) => roles.includes(role)),
    toEdge(edgeId) {
      const name = edgeNameOf(edgeId)
      return expecting('edge', `edge ${name}`, ({ roles, edgeNames }) => roles.includes('edge') && edgeNames.includes(name))
    },
  }
}
