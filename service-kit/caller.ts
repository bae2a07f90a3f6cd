import { TLSSocket } from 'node:tls'
import { ServerInterceptingCall, type ServerInterceptingCallInterface, type ServerInterceptor } from '@grpc/grpc-js'
import type { CallContext } from 'nice-grpc-common'
import { identityOfAltName, type PeerIdentity, type Role, roles } from './peer-identity.ts'
import { PushError } from './push-error.ts'

/** Who makes a call. */
export interface Caller {
  /** The name that messages and operator actions are kept under; for services what they are: `router`, `edge:edge-1`. */
  readonly principal: string
  readonly roles: readonly Role[]
  /** Names of edges that the caller may act for; undefined: any. */
  readonly edgeNames: readonly string[] | undefined
  /** What it was believed for. `nothing`: the server asks nobody who he is. */
  readonly shown: 'nothing' | 'certificate' | 'token'
  /** When what it showed expires, in ms since the epoch; undefined: with the connection. */
  readonly expiresAtMs: number | undefined
}

/** What every call's context says of its caller. */
export interface CallerContext {
  readonly caller: Caller
}

/** Everybody, on a server that asks nobody who he is: on loopback, or where the operator allows plain text. */
export const anonymous: Caller = {
  principal: 'anonymous',
  roles,
  edgeNames: undefined,
  shown: 'nothing',
  expiresAtMs: undefined,
}

/** Whoever asks for what everyone may have. */
export const nobody: Caller = { ...anonymous, roles: [], edgeNames: [] }

/** The caller that a certificate names; undefined when it names nobody. */
export function callerOfCertificate(identity: PeerIdentity): Caller | undefined {
  // Publishers and operators are somebody; services are known by what they are.
  const known = identity.roles.filter((role) => (role !== 'publisher' && role !== 'operator') || identity.principal !== undefined)
  const [first] = known
  if (first === undefined) return undefined
  const service = first === 'edge' ? `edge:${identity.edgeNames.join(',')}` : first
  return {
    principal: identity.principal ?? service,
    roles: known,
    edgeNames: identity.edgeNames,
    shown: 'certificate',
    expiresAtMs: undefined,
  }
}

/** Throws PERMISSION_MISSING unless the caller may act for the edge of this name. */
export function requireEdgeName(caller: Caller, edgeName: string): void {
  if (caller.edgeNames === undefined || caller.edgeNames.includes(edgeName)) return
  const may = caller.edgeNames.length === 0 ? 'no edge' : caller.edgeNames.join(', ')
  throw new PushError(
    'PERMISSION_MISSING',
    `the certificate allows to act for ${may}, not for edge "${edgeName.slice(0, 64)}"; it needs the URI push:edge:<name>`,
    { edge_name: edgeName.slice(0, 64) },
  )
}

/** Where the interceptor leaves what the peer's certificate says; whatever a caller sends under this name is removed. */
const identityKey = 'push-peer-identity'

/** Lets middleware see the certificate that a caller has shown, if it was issued by one of our authorities. */
export const identityInterceptor: ServerInterceptor = (_method, call) =>
  new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(metadata, forward) {
          metadata.remove(identityKey)
          const identity = identityOfPeer(call)
          if (identity !== undefined) metadata.set(identityKey, JSON.stringify(identity))
          forward(metadata)
        },
      })
    },
  })

/** What the certificate of a call's peer says; undefined without one. */
export function peerIdentity(context: Pick<CallContext, 'metadata'>): PeerIdentity | undefined {
  const text = context.metadata.get(identityKey)
  if (text === undefined) return undefined
  const identity: PeerIdentity = JSON.parse(text)
  return identity
}

/** One reading a connection: a certificate does not change while its connection lives. */
const identities = new WeakMap<object, PeerIdentity | undefined>()

function identityOfPeer(call: ServerInterceptingCallInterface): PeerIdentity | undefined {
  const session = sessionOf(call)
  if (session === undefined) return identityOfAltName(call.getAuthContext().sslPeerCertificate?.subjectaltname)
  if (!identities.has(session)) identities.set(session, readIdentity(session.socket))
  return identities.get(session)
}

function readIdentity(socket: unknown): PeerIdentity | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined
  return identityOfAltName(socket.getPeerX509Certificate()?.subjectAltName)
}

/**
 * The HTTP/2 session of a call. grpc-js keeps it to itself and offers the certificate in a form that takes 0.2 ms to make, for each call anew;
 * where it keeps it elsewhere, in another version, that form is what remains.
 */
function sessionOf(call: ServerInterceptingCallInterface): { readonly socket: unknown } | undefined {
  const { stream } = call as { stream?: unknown }
  if (typeof stream !== 'object' || stream === null || !('session' in stream)) return undefined
  const { session } = stream
  return typeof session === 'object' && session !== null && 'socket' in session ? session : undefined
}
