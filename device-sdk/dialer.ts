import type { Fetch } from './answer-posts.ts'
import type { Clock } from './clock.ts'
import { type FrameCodec, jsonCodec } from './codec.ts'
import { openEventSocket } from './event-socket.ts'
import { protobufCodec } from './protobuf-codec.ts'
import type { Random } from './random.ts'
import type { OpenSocket, Socket } from './socket.ts'
import { subprotocolsFor } from './subprotocols.ts'

/** How a device reaches an edge: what carries its frames, and in which form. */
export interface Dialer {
  readonly codec: FrameCodec
  /** Schemes of the addresses that it can dial: over TLS, and in plain text. */
  readonly schemes: readonly [secure: string, plain: string]
  /** Opens a connection that shows `token`; it may still be connecting when this returns. Throws when the address cannot be one. */
  dial(url: string, token: string): Socket
}

/** Dials WebSockets. The credential goes as a second subprotocol, because a browser can set no header. */
export function webSocketDialer(openSocket: OpenSocket, protocol: 'json' | 'protobuf'): Dialer {
  const codec = protocol === 'json' ? jsonCodec : protobufCodec
  return {
    codec,
    schemes: ['wss:', 'ws:'],
    dial(url, token) {
      const socket = openSocket(url, subprotocolsFor(codec.subprotocol, token))
      socket.binaryType = 'arraybuffer'
      return socket
    },
  }
}

/** Dials event streams. They carry the JSON form, and show the credential in a header. */
export function eventStreamDialer(options: { readonly fetch: Fetch; readonly clock: Clock; readonly random: Random }): Dialer {
  return {
    codec: jsonCodec,
    schemes: ['https:', 'http:'],
    dial: (url, token) => openEventSocket({ url, token, ...options }),
  }
}
