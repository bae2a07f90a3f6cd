import {
  type EdgeLease,
  EdgeLeaseState,
  RegistryServiceDefinition,
  type WatchEdgesResponse,
} from '../../gen/push/internal/v1/registry.ts'
import { type Backoff, createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'

/** What the directory needs. */
export interface EdgeDirectoryOptions {
  readonly registry: GrpcConnection
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** The registry's newest picture of all edges. While the registry is away the last picture stays. */
export interface EdgeDirectory {
  /** What is known of an edge; undefined when the newest picture does not have it, or there is no picture yet. */
  get(edgeId: string): EdgeLease | undefined
  /** Edges whose lease is valid. */
  liveCount(): number
  /** True once a first picture has come. */
  readonly known: boolean
  /** Ends the watch. */
  close(): void
}

/** A picture or a sign of life comes at least every 10 s; a stream that is silent for longer is opened again. */
const watchSilenceMs = 25_000

/** Follows the registry's picture of the edges until closed. */
export function watchEdgeDirectory(options: EdgeDirectoryOptions): EdgeDirectory {
  const { registry, clock, random, log, metrics } = options
  const client = registry.client(RegistryServiceDefinition)
  const backoff: Backoff = createBackoff({ baseMs: 100, capMs: 5_000, random })
  const skew = metrics.gauge('push_router_registry_clock_skew_seconds', 'Registry clock minus router clock, as last heard')
  const breaks = metrics.counter('push_router_edge_watch_breaks_total', 'Times the stream of edge states ended')
  const ended = new AbortController()
  let edges = new Map<string, EdgeLease>()
  let known = false

  function take(picture: WatchEdgesResponse): void {
    edges = new Map(picture.edges.map((edge) => [edge.edgeId, edge]))
    known = true
    skew.set((picture.registryTime - clock.nowMicros()) / 1_000_000)
  }

  async function follow(): Promise<void> {
    while (!ended.signal.aborted) {
      // One abort a stream, and streams break rarely: far from the number of resets that makes a server drop the connection.
      const attempt = new AbortController()
      const stop = () => attempt.abort()
      ended.signal.addEventListener('abort', stop, { once: true })
      let silence = clock.after(watchSilenceMs, stop)
      try {
        for await (const picture of client.watchEdges({}, { signal: attempt.signal })) {
          silence.cancel()
          silence = clock.after(watchSilenceMs, stop)
          backoff.reset()
          take(picture)
        }
      } catch (cause) {
        if (!ended.signal.aborted) log.debug('edge watch broke', { cause })
      } finally {
        silence.cancel()
        ended.signal.removeEventListener('abort', stop)
      }
      if (ended.signal.aborted) return
      breaks.inc()
      await clock.sleep(backoff.next(), ended.signal).catch(() => undefined)
    }
  }
  void follow()

  return {
    get: (edgeId) => edges.get(edgeId),
    liveCount() {
      let count = 0
      for (const edge of edges.values()) if (edge.state === EdgeLeaseState.LIVE) count++
      return count
    },
    get known() {
      return known
    },
    close: () => ended.abort(),
  }
}
