import type { SessionRow } from '../../gen/push/internal/v1/registry.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'

/** Bounds of the route cache. */
export interface RouteCacheOptions {
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  /** Most devices remembered; the one looked up longest ago goes first. */
  readonly entryCountMax: number
  /** Longest life of an entry in ms; each gets between half of it and all of it, so that they do not run out together. */
  readonly entryTtlMs: number
}

/**
 * Remembers where devices were when last looked up. It is a hint about a hint: the edge says so when it is stale, and the entry is then
 * evicted. That a device has no session is never remembered, since it may connect at any moment.
 */
export interface RouteCache {
  /** The row last seen for this device, unless it has run out. */
  get(deviceId: string): SessionRow | undefined
  /** Remembers a row. */
  set(row: SessionRow): void
  /** Forgets the row of this device, if it is still the one given. */
  evict(row: SessionRow): void
  /** Forgets every row of one edge. Call it when the edge is gone. Costs a pass over all entries. */
  evictEdge(edgeId: string): void
}

interface Entry {
  readonly row: SessionRow
  readonly staleAt: number
}

/** Creates an empty cache. */
export function createRouteCache(options: RouteCacheOptions): RouteCache {
  const { clock, random, metrics, entryCountMax, entryTtlMs } = options
  const entries = new Map<string, Entry>()
  const size = metrics.gauge('push_router_route_cache_entries', 'Devices whose route is remembered')
  const lookups = metrics.counter('push_router_route_cache_lookups_total', 'Questions to the route cache by answer', ['answer'])
  const evictions = metrics.counter('push_router_route_cache_evictions_total', 'Routes forgotten by cause', ['cause'])

  function remove(deviceId: string, cause: string): void {
    entries.delete(deviceId)
    evictions.inc({ cause })
    size.set(entries.size)
  }

  return {
    get(deviceId) {
      const entry = entries.get(deviceId)
      if (!entry) {
        lookups.inc({ answer: 'miss' })
        return undefined
      }
      if (entry.staleAt <= clock.monotonic()) {
        remove(deviceId, 'age')
        lookups.inc({ answer: 'miss' })
        return undefined
      }
      lookups.inc({ answer: 'hit' })
      return entry.row
    },
    set(row) {
      entries.delete(row.deviceId) // so that it moves to the young end of the map's order
      entries.set(row.deviceId, { row, staleAt: clock.monotonic() + entryTtlMs * (0.5 + random.next() / 2) })
      if (entries.size > entryCountMax) {
        const oldest = entries.keys().next().value
        if (oldest !== undefined) remove(oldest, 'full')
      }
      size.set(entries.size)
    },
    evict(row) {
      const entry = entries.get(row.deviceId)
      if (entry && entry.row.sessionId === row.sessionId && entry.row.epoch === row.epoch) remove(row.deviceId, 'stale')
    },
    evictEdge(edgeId) {
      for (const [deviceId, entry] of entries) if (entry.row.edgeId === edgeId) remove(deviceId, 'edge-gone')
    },
  }
}
