import { experimental, ServerCredentials } from '@grpc/grpc-js'
import type { Server } from 'nice-grpc'
import { createServer } from 'nice-grpc'
import { HealthDefinition, HealthServiceImpl, HealthState } from 'nice-grpc-server-health'
import { ServerReflection, ServerReflectionService } from 'nice-grpc-server-reflection'
import { type AccessOptions, accessMiddleware, type RoleTable, type TokenVerifier } from './access.ts'
import { deadlineInterceptor } from './call-deadline.ts'
import { callMetricsMiddleware } from './call-metrics.ts'
import { type CallerContext, identityInterceptor } from './caller.ts'
import type { Clock } from './clock.ts'
import type { DrainContext } from './drain-middleware.ts'
import { drainMiddleware } from './drain-middleware.ts'
import { errorMiddleware } from './error-server.ts'
import { quietGrpcLibrary } from './grpc-logging.ts'
import { formatHostPort, PortTakenError, parseHostPort } from './listen-address.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { Role } from './peer-identity.ts'
import { roles } from './peer-identity.ts'
import type { Tls } from './tls.ts'

/** What every call's context offers besides nice-grpc's own. */
export type ServedContext = DrainContext & CallerContext

/** What `serveGrpc` takes. */
export interface GrpcServerOptions {
  /** Where to listen: `host:port`; port 0 lets the system choose. */
  readonly address: string
  /** Adds the services, once, before anything listens. */
  readonly services: (server: Server<ServedContext>) => void
  /** Who may call what. Health checks are everyone's, watching health and reflection anybody's who has a role. With TLS it is required. */
  readonly roles?: RoleTable
  /** Serves over TLS and asks callers for their certificate. Unset: plain text, and everybody may do what `roles` knows. */
  readonly tls?: Tls | undefined
  /** Takes tokens besides certificates, so that callers may come without a certificate. */
  readonly tokens?: TokenVerifier | undefined
  /** Hears of each caller that is known and has not the role, before it is told so. Must not reject. */
  readonly onDenied?: AccessOptions['onDenied']
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  /** Also answers reflection for these services, from a serialised FileDescriptorSet. Off when unset. */
  readonly reflection?: { readonly descriptorSet: Uint8Array; readonly services: readonly string[] } | undefined
  /** Longest message taken, in bytes. A longer one ends its call with RESOURCE_EXHAUSTED. Default 4 MiB. */
  readonly maxReceiveBytes?: number
  /** Most calls at once on one connection; more wait at the client. Default 10 000. */
  readonly maxCallsPerConnection?: number
  /**
   * Asks clients to reconnect after about this time (a tenth more or less, at random), so that new processes get work.
   * For servers of unary calls; streams still open after `connectionAgeGraceMs` are cut. Unset: connections stay.
   */
  readonly maxConnectionAgeMs?: number | undefined
  /** How long calls may go on when a connection has come of age. Default 30 000. */
  readonly connectionAgeGraceMs?: number
  /** Pings that find dead clients: after so long a silence, and how long the answer may take. Default 20 s and 10 s. */
  readonly keepalive?: { readonly timeMs: number; readonly timeoutMs: number }
}

/** A server that listens. */
export interface GrpcServer {
  /** The `host:port` that it really has. */
  readonly address: string
  /** Aborts when draining begins. */
  readonly draining: AbortSignal
  /** Sets what health checks answer for a service, or for the whole server (''). The whole is serving from the start. */
  setServing(service: string, serving: boolean): void
  /**
   * Reports not serving, ends the calls that asked for it, takes no new connections, lets the others finish for
   * `graceMs`, cuts what is left. Long streams should be ended first. A second call joins the first.
   */
  drain(graceMs: number): Promise<void>
}

/** Starts a gRPC server with health, error map, call metrics and limits. Throws PortTakenError when the port is in use. */
export async function serveGrpc(options: GrpcServerOptions): Promise<GrpcServer> {
  const { address, log, metrics, clock, reflection, tls, tokens } = options
  if (tls !== undefined && options.roles === undefined) throw new TypeError('a server with TLS needs a role table')
  quietGrpcLibrary()
  const draining = new AbortController()
  const health = HealthState()
  // One listener for each health watch, and those are bounded by the calls a connection may have.
  health.setMaxListeners(0)
  const known = new Set([''])

  const server = createServer({ ...channelOptions(options), interceptors: [identityInterceptor, deadlineInterceptor] })
    .use(callMetricsMiddleware(metrics, clock))
    .use(errorMiddleware(log, metrics))
    .use(
      accessMiddleware({
        table: options.roles && withOwnServices(options.roles),
        authenticated: tls !== undefined,
        tokens,
        onDenied: options.onDenied,
        clock,
      }),
    )
    .use(drainMiddleware(draining.signal))
  server.add(HealthDefinition, HealthServiceImpl(health))
  if (reflection !== undefined) {
    server.add(ServerReflectionService, ServerReflection(reflection.descriptorSet, reflection.services))
  }
  options.services(server)
  const port = await listen(server, address, credentialsOf(tls, tokens))

  const setServing = (service: string, serving: boolean) => {
    // A drain is not taken back: whoever still reports a service as well does not know yet.
    if (draining.signal.aborted && serving) return
    known.add(service)
    health.setStatus(serving ? 'healthy' : 'unhealthy', service)
  }

  const drainOnce = async (graceMs: number) => {
    for (const service of known) setServing(service, false)
    draining.abort()
    const finished = new AbortController()
    const grace = clock.sleep(graceMs, finished.signal).then(
      () => 'late' as const,
      () => 'in time' as const,
    )
    const shutdown = server.shutdown().then(() => 'in time' as const)
    const ended = await Promise.race([shutdown, grace]).finally(() => finished.abort())
    if (ended === 'in time') return
    log.warn('grpc calls were cut at the end of the grace', { address, grace_ms: graceMs })
    server.forceShutdown()
    await shutdown
  }
  let drained: Promise<void> | undefined

  return {
    address: formatHostPort({ host: parseHostPort(address)?.host ?? address, port }),
    draining: draining.signal,
    setServing,
    drain(graceMs) {
      drained ??= drainOnce(graceMs)
      return drained
    },
  }
}

/** Where tokens are taken, a caller without certificate gets as far as its token. */
function credentialsOf(tls: Tls | undefined, tokens: TokenVerifier | undefined): ServerCredentials {
  if (tls === undefined) return ServerCredentials.createInsecure()
  return experimental.createCertificateProviderServerCredentials(tls.provider, tls.provider, tokens === undefined)
}

function withOwnServices(table: RoleTable): RoleTable {
  return new Map<string, readonly Role[] | 'everyone'>([...ownServices, ...table])
}

/** Who may call what `serveGrpc` itself adds to every server: health checks are everyone's, the rest is for those who are somebody. */
export const ownServices: RoleTable = new Map<string, readonly Role[] | 'everyone'>([
  [`/${HealthDefinition.fullName}/Check`, 'everyone'],
  // What stays open is not for whoever passes by.
  [`/${HealthDefinition.fullName}/Watch`, roles],
  [ServerReflectionService.serverReflectionInfo.path, roles],
])

async function listen(server: Server<ServedContext>, address: string, credentials: ServerCredentials): Promise<number> {
  try {
    return await server.listen(address, credentials)
  } catch (cause) {
    if (cause instanceof Error && cause.message.includes('EADDRINUSE')) throw new PortTakenError(address, cause)
    throw cause
  }
}

function channelOptions(options: GrpcServerOptions): Record<string, number> {
  const { keepalive = { timeMs: 20_000, timeoutMs: 10_000 }, maxConnectionAgeMs, connectionAgeGraceMs = 30_000 } = options
  return {
    'grpc.max_receive_message_length': options.maxReceiveBytes ?? 4 * 1024 * 1024,
    'grpc.max_concurrent_streams': options.maxCallsPerConnection ?? 10_000,
    'grpc.keepalive_time_ms': keepalive.timeMs,
    'grpc.keepalive_timeout_ms': keepalive.timeoutMs,
    ...(maxConnectionAgeMs === undefined
      ? {}
      : { 'grpc.max_connection_age_ms': maxConnectionAgeMs, 'grpc.max_connection_age_grace_ms': connectionAgeGraceMs }),
  }
}
