import type { IncomingMessage } from 'node:http'
import type { Credential } from './auth/identity.ts'
import { codecFor, type FrameCodec, subprotocolNames } from './frame-codec.ts'

/** Why a connection is not let in, as metrics and logs call it. */
export type RefusalReason =
  | 'wrong_path'
  | 'wrong_method'
  | 'not_websocket'
  | 'wrong_version'
  | 'wrong_origin'
  | 'wrong_subprotocol'
  | 'wrong_query'
  | 'malformed'
  | 'timeout'
  | 'unauthenticated'
  | 'expired'
  | 'identity_unavailable'
  | 'handshakes'
  | 'full'
  | 'backlog'
  | 'rate'
  | 'address_connections'
  | 'address_rate'
  | 'address_failures'
  | 'proxy_header'
  | 'proxy_untrusted'
  | 'draining'
  | 'too_large'
  | 'invalid_answers'
  | 'answers_rate'
  | 'answers_full'
  | 'sent_away'
  | 'no_stream'

/** How a refused handshake is answered. */
export interface Refusal {
  readonly status: number
  readonly reason: RefusalReason
  /** For the client's developer; one line. */
  readonly message: string
  readonly headers?: Readonly<Record<string, string>>
}

/** What a handshake asks for. */
export interface ConnectRequest {
  /** Undefined: it showed none. */
  readonly credential: Credential | undefined
  /** The device can acknowledge. */
  readonly acknowledges: boolean
  /** The form of the frames. */
  readonly codec: FrameCodec
}

/** Where devices connect. */
export const connectPath = '/v1/connect'

const webSocketVersion = '13'
const bearerSubprotocol = 'push.bearer.'
const bearerHeader = /^Bearer +(\S+)$/i

/** The credential in a request's header; undefined when there is none, or one of another kind. */
export function bearerOf(authorization: string | undefined): Credential | undefined {
  const text = authorization === undefined ? undefined : bearerHeader.exec(authorization)?.[1]
  return text === undefined ? undefined : { text, from: 'header' }
}

/** Whether the device can acknowledge, as the query says; undefined when it says something else. */
export function acknowledgesIn(query: string): boolean | undefined {
  const acks = new URLSearchParams(query).get('acks')
  return acks === null ? true : acks === 'none' ? false : undefined
}

/** Reads a handshake, or says what is wrong with it. Everything here is free of cost: nothing is looked up, nobody is asked. */
export function readHandshake(request: IncomingMessage, allowedOrigins: readonly string[]): ConnectRequest | Refusal {
  const { method, url = '/', headers } = request
  const [path = '', query = ''] = url.split('?', 2)
  if (path !== connectPath) return { status: 404, reason: 'wrong_path', message: `devices connect at ${connectPath}` }
  if (method !== 'GET') {
    return { status: 405, reason: 'wrong_method', message: 'devices connect with GET', headers: { allow: 'GET' } }
  }
  if (headers.upgrade?.toLowerCase() !== 'websocket') {
    const upgrade = { upgrade: 'websocket', connection: 'upgrade, close' }
    return { status: 426, reason: 'not_websocket', message: 'devices connect with a WebSocket', headers: upgrade }
  }
  // RFC 6455, 4.4: says which version is spoken here, so that a client may try again with it.
  if (headers['sec-websocket-version'] !== webSocketVersion) {
    const version = { 'sec-websocket-version': webSocketVersion }
    return {
      status: 426,
      reason: 'wrong_version',
      message: `WebSocket version ${webSocketVersion} is spoken here`,
      headers: version,
    }
  }
  // Node asks for it in plain requests only.
  if (headers.host === undefined || headers.host === '') {
    return { status: 400, reason: 'malformed', message: 'the header Host is required' }
  }
  if (headers.origin !== undefined && !allowedOrigins.includes(headers.origin)) {
    return { status: 403, reason: 'wrong_origin', message: 'pages of this origin may not connect' }
  }
  const offered = (headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim())
  const codec = codecFor(offered)
  if (codec === undefined) {
    return { status: 400, reason: 'wrong_subprotocol', message: `the subprotocol ${subprotocolNames} is required` }
  }
  const acknowledges = acknowledgesIn(query)
  if (acknowledges === undefined) return { status: 400, reason: 'wrong_query', message: 'acks may only be none' }
  return { credential: readCredential(headers.authorization, offered), acknowledges, codec }
}

function readCredential(authorization: string | undefined, offered: readonly string[]): Credential | undefined {
  if (authorization !== undefined) return bearerOf(authorization)
  const bearer = offered.find((name) => name.startsWith(bearerSubprotocol))
  return bearer === undefined ? undefined : { text: bearer.slice(bearerSubprotocol.length), from: 'subprotocol' }
}
