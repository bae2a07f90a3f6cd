import { connectivityState } from '@grpc/grpc-js'
import type { Client, ClientMiddleware, CompatServiceDefinition } from 'nice-grpc'
import { Channel, ChannelCredentials, createClientFactory, Metadata } from 'nice-grpc'
import { channelTarget } from './address-resolver.ts'
import type { CallBounds } from './call-bounds.ts'
import { callBoundsMiddleware } from './call-bounds.ts'
import type { ClientTransport } from './client-transport.ts'
import { requireProtected } from './client-transport.ts'
import type { Clock } from './clock.ts'
import { errorDetailsMiddleware } from './error-client.ts'
import { quietGrpcLibrary } from './grpc-logging.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createMetrics } from './metrics.ts'
import type { Random } from './random.ts'
import { systemRandom } from './random.ts'

export type { CallBounds } from './call-bounds.ts'

/** What `connectGrpc` takes. */
export interface GrpcClientOptions {
  /** Whom to dial: `host:port[,host:port…]` (names too) or `dns:///name:port`; calls go round all that answer. */
  readonly addresses: string
  /** How connections are protected. Default: plain text, to this machine only. */
  readonly transport?: ClientTransport
  /** Sent with every call as `authorization: Bearer …`. */
  readonly token?: string | undefined
  readonly log: Log
  readonly clock: Clock
  /** Jitter of retries. Default: the machine's. */
  readonly random?: Random
  /** Where retries and unanswered calls are counted. Without it nobody sees them. */
  readonly metrics?: Metrics
  /** Longest answer taken, in bytes. A longer one fails its call. Default 4 MiB. */
  readonly maxReceiveBytes?: number
  /** Pings after so long a silence (10 to 30 s is safe everywhere), and how long the answer may take. Default 20 s, 5 s. */
  readonly keepalive?: { readonly timeMs: number; readonly timeoutMs: number }
  /** Longest pause between attempts to connect. Default 5 000. */
  readonly reconnectCapMs?: number
  /** Waits before retries: the first is below `retryBaseMs` (50), every one below `retryCapMs` (1 000). */
  readonly retryBaseMs?: number
  readonly retryCapMs?: number
}

/** Connections to one kind of server, opened when first used, with clients for its services. */
export interface GrpcConnection {
  /** A typed client; its calls take `deadlineMs` and `retries` besides nice-grpc's options, and fail with CallError. */
  client<Service extends CompatServiceDefinition>(definition: Service): Client<Service, CallBounds>
  /** Resolves when a server answers; rejects with NotReadyError after `deadlineMs`. */
  waitReady(deadlineMs: number): Promise<void>
  /** Ends the connections; calls still under way fail. */
  close(): void
}

/** No server has answered in time. */
export class NotReadyError extends Error {
  override readonly name = 'NotReadyError'
}

/** Prepares connections; dials nothing yet. Throws TypeError when the addresses are malformed, PlainTextError where plain text is not allowed. */
export function connectGrpc(options: GrpcClientOptions): GrpcConnection {
  const { addresses, log, clock, random = systemRandom, metrics = createMetrics() } = options
  const { retryBaseMs = 50, retryCapMs = 1_000 } = options
  const transport = options.transport ?? { kind: 'plain', anywhere: false }
  quietGrpcLibrary()
  const target = channelTarget(addresses)
  requireProtected(addresses, transport)
  const credentials = transport.kind === 'tls' ? transport.credentials : ChannelCredentials.createInsecure()
  const channel = new Channel(target, credentials, {
    ...channelOptions(options),
    ...(transport.kind === 'tls' && { 'grpc.ssl_target_name_override': transport.serverName }),
  })
  const factory = createClientFactory()
    .use(errorDetailsMiddleware)
    .use(bearerMiddleware(options.token))
    .use(callBoundsMiddleware({ clock, random, metrics, retryBaseMs, retryCapMs }))
  let closed = false

  const watchState = (from: connectivityState) => {
    if (closed) return
    channel.watchConnectivityState(from, Number.POSITIVE_INFINITY, () => {
      if (closed) return
      const state = channel.getConnectivityState(false)
      if (state === connectivityState.READY) log.info('grpc server reached', { addresses })
      if (state === connectivityState.TRANSIENT_FAILURE) log.warn('no grpc server can be reached', { addresses })
      watchState(state)
    })
  }
  watchState(channel.getConnectivityState(false))

  return {
    client: (definition) => factory.create(definition, channel),
    waitReady: (deadlineMs) => waitReady(channel, addresses, clock, deadlineMs),
    close() {
      if (closed) return
      closed = true
      channel.close()
    },
  }
}

function bearerMiddleware(token: string | undefined): ClientMiddleware {
  return (call, options) => {
    if (token === undefined) return call.next(call.request, options)
    const metadata = Metadata(options.metadata)
    metadata.set('authorization', `Bearer ${token}`)
    return call.next(call.request, { ...options, metadata })
  }
}

function waitReady(channel: Channel, addresses: string, clock: Clock, deadlineMs: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let over = false
    const timer = clock.after(deadlineMs, () => {
      over = true
      reject(new NotReadyError(`none of ${addresses} answered within ${deadlineMs} ms`))
    })
    const look = () => {
      if (over) return
      const state = channel.getConnectivityState(true)
      if (state === connectivityState.READY || state === connectivityState.SHUTDOWN) {
        over = true
        timer.cancel()
        if (state === connectivityState.READY) resolve()
        else reject(new NotReadyError(`the connection to ${addresses} has been closed`))
        return
      }
      channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, look)
    }
    look()
  })
}

function channelOptions(options: GrpcClientOptions): Record<string, number | string> {
  const { keepalive = { timeMs: 20_000, timeoutMs: 5_000 }, reconnectCapMs = 5_000 } = options
  return {
    'grpc.service_config': JSON.stringify({ loadBalancingConfig: [{ round_robin: {} }] }),
    'grpc.max_receive_message_length': options.maxReceiveBytes ?? 4 * 1024 * 1024,
    'grpc.keepalive_time_ms': keepalive.timeMs,
    'grpc.keepalive_timeout_ms': keepalive.timeoutMs,
    'grpc.keepalive_permit_without_calls': 1,
    'grpc.initial_reconnect_backoff_ms': Math.min(250, reconnectCapMs),
    'grpc.max_reconnect_backoff_ms': reconnectCapMs,
    // Connections belong to who opened them: closing one client must close its connections.
    'grpc.use_local_subchannel_pool': 1,
    // A web proxy of the environment does not carry calls between services.
    'grpc.enable_http_proxy': 0,
  }
}
