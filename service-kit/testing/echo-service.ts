import type { CallContext } from 'nice-grpc'
import type { ServedContext } from '../grpc-server.ts'

/** What the echo service takes and gives, as JSON on the wire: tests of the transport need no contract of their own. */
export interface EchoMessage {
  text: string
}

const codec = {
  requestSerialize: encode,
  requestDeserialize: decode,
  responseSerialize: encode,
  responseDeserialize: decode,
}

/** A service of each kind of method. */
export const EchoDefinition = {
  unary: { path: '/test.Echo/Unary', requestStream: false, responseStream: false, options: {}, ...codec },
  serverStream: { path: '/test.Echo/ServerStream', requestStream: false, responseStream: true, options: {}, ...codec },
  bidi: { path: '/test.Echo/Bidi', requestStream: true, responseStream: true, options: {}, ...codec },
} as const

/** What a test wants to happen; by default everything is echoed. */
export interface EchoBehaviour {
  unary?(request: EchoMessage, context: CallContext & ServedContext): Promise<EchoMessage>
  serverStream?(request: EchoMessage, context: CallContext & ServedContext): AsyncIterable<EchoMessage>
}

/** An implementation of it. */
export function echoService(behaviour: EchoBehaviour = {}) {
  return {
    unary: (request: EchoMessage, context: CallContext & ServedContext): Promise<EchoMessage> =>
      behaviour.unary?.(request, context) ?? Promise.resolve(request),
    async *serverStream(request: EchoMessage, context: CallContext & ServedContext): AsyncIterable<EchoMessage> {
      yield* behaviour.serverStream?.(request, context) ?? [request]
    },
    async *bidi(requests: AsyncIterable<EchoMessage>): AsyncIterable<EchoMessage> {
      yield* requests
    },
  }
}

function encode(message: EchoMessage): Uint8Array {
  return Buffer.from(JSON.stringify(message))
}

function decode(bytes: Uint8Array): EchoMessage {
  const message: EchoMessage = JSON.parse(Buffer.from(bytes).toString())
  return message
}
