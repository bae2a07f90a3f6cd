import type { EdgeLeaseState, RenewEdgeRequest } from '../../gen/push/internal/v1/registry.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics, type Metrics } from '../../service-kit/metrics.ts'
import type { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import type { EdgeStore } from '../edge-store.ts'
import { createEdges, type Edges, type EdgesOptions } from '../edges.ts'
import { createServiceLimits } from '../service-limits.ts'

/** The edges of one registry under a steered clock. */
export interface TestEdges {
  readonly edges: Edges
  readonly metrics: Metrics
  /** An edge renews its lease. */
  renew(edgeId: string, rest?: Partial<RenewEdgeRequest>): Promise<{ lapsed: boolean }>
  /** Lets time pass on the registry's clock, with a read of the leases every two seconds. */
  readFor(ms: number): Promise<void>
  states(): Record<string, EdgeLeaseState>
}

export const leasePeriodMs = 30_000

/** Edges on a store. */
export function testEdges(store: EdgeStore, clock: SteeredClock, bounds: Partial<EdgesOptions> = {}): TestEdges {
  const metrics = createMetrics()
  const { leases } = createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics })
  const edges = createEdges({
    store,
    limits: leases,
    leasePeriodMs,
    readPeriodMs: 2_000,
    watchersMax: 16,
    clock,
    log: silentLog,
    metrics,
    ...bounds,
  })
  return {
    edges,
    metrics,
    renew: (edgeId, rest = {}) => edges.renew(renewRequest(edgeId, rest), { signal: new AbortController().signal }),
    async readFor(ms) {
      for (let passed = 0; passed < ms; passed += 2_000) {
        await clock.advance(2_000)
        await edges.readNow()
      }
    },
    states: () =>
      Object.fromEntries(edges.list({ pageSize: 1000, pageToken: '' }).edges.map(({ edgeId, state }) => [edgeId, state])),
  }
}

/** What an edge sends. */
export function renewRequest(edgeId: string, rest: Partial<RenewEdgeRequest> = {}): RenewEdgeRequest {
  return {
    edgeId,
    name: edgeId.slice(0, -9),
    address: '127.0.0.1:7402',
    zone: 'zone-1',
    connectionCount: 3,
    connectionLimit: 100,
    draining: false,
    ttl: undefined,
    ...rest,
  }
}
