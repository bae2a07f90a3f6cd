import {
  type EdgeLease,
  EdgeLeaseState,
  type ListEdgesRequest,
  type ListEdgesResponse,
  type RenewEdgeRequest,
  type RenewEdgeResponse,
  type WatchEdgesResponse,
} from '../gen/push/internal/v1/registry.ts'
import type { Clock } from '../service-kit/clock.ts'
import { PushError } from '../service-kit/errors.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { msFromDuration } from '../service-kit/time.ts'
import type { CallScope } from './batches.ts'
import { EdgeLiveness, type EdgeState, type KnownEdge } from './edge-liveness.ts'
import type { EdgeRecord, EdgeStore } from './edge-store.ts'
import { checkListEdges, checkRenewEdge, pageTokenAfter } from './request-checks.ts'
import type { WorkLimits } from './service-limits.ts'

/** An unchanged picture is sent again after this time, as a sign of life. */
export const watchResendMs = 10_000

const stateCodes: Record<EdgeState, EdgeLeaseState> = {
  live: EdgeLeaseState.LIVE,
  suspect: EdgeLeaseState.SUSPECT,
  lapsed: EdgeLeaseState.LAPSED,
}

/** What edges are made with. */
export interface EdgesOptions {
  readonly store: EdgeStore
  readonly limits: WorkLimits
  /** The lease of an edge that asks for none, and the period that the rules of liveness speak of. */
  readonly leasePeriodMs: number
  /** How often the leases are read. */
  readonly readPeriodMs: number
  /** Most streams of pictures at once. */
  readonly watchersMax: number
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** The calls of `RegistryService` that speak of edges, and the picture behind them. */
export interface Edges {
  renew(request: RenewEdgeRequest, scope: CallScope): Promise<RenewEdgeResponse>
  list(request: ListEdgesRequest): ListEdgesResponse
  /** Yields the picture at once and after every change. A slow reader gets the newest one when it is ready again. */
  watch(scope: CallScope): AsyncGenerator<WatchEdgesResponse, void>
  stateOf(edgeId: string): EdgeLeaseState
  /** Whether the last read of the leases succeeded. */
  readonly reading: boolean
  /** Reads the leases now, or joins a read under way. Never rejects. */
  readNow(): Promise<void>
  /** Ends the reads. */
  close(): Promise<void>
}

/** Starts reading the leases every `readPeriodMs`. */
export function createEdges(options: EdgesOptions): Edges {
  const { store, limits, leasePeriodMs, readPeriodMs, watchersMax, clock, log, metrics } = options
  // Three reads that did not come are a store that does not answer.
  const liveness = new EdgeLiveness({ leasePeriodMs, readGapMaxMs: 3 * readPeriodMs })
  const counts = metrics.gauge('push_registry_edges', 'Edges by what is believed of them', ['state'])
  const lapses = metrics.counter('push_registry_edge_lapses_told_total', 'Renewals of edges that had lapsed')
  const readFailures = metrics.counter('push_registry_edge_read_failures_total', 'Reads of the leases that failed')
  const watchersGauge = metrics.gauge('push_registry_edge_watchers', 'Open streams of the picture of edges')
  const watchersRefused = metrics.counter(
    'push_registry_edge_watchers_refused_total',
    'Watches refused because too many were open',
  )
  let reading = false
  let everRead = false
  let readUnderWay: Promise<void> | undefined
  let watchers = 0
  const wakeWatchers = new Set<() => void>()
  let toldVersion = 0

  const tellChanges = () => {
    for (const state of ['live', 'suspect', 'lapsed'] as const) counts.set({ state }, liveness.count(state))
    if (!everRead || liveness.version === toldVersion) return
    toldVersion = liveness.version
    for (const wake of wakeWatchers) wake()
  }

  const readOnce = async () => {
    const startedAt = clock.monotonic()
    try {
      const leases = await store.readAll()
      liveness.readSucceeded(clock.monotonic(), startedAt, leases)
      if (!reading) log.info('edge leases are read', { edge_count: leases.length })
      reading = true
      if (!everRead) {
        everRead = true
        // Whoever waits for the first picture gets it, be it empty.
        toldVersion = -1
      }
    } catch (cause) {
      liveness.readFailed()
      readFailures.inc()
      if (reading || !everRead) log.warn('edge leases cannot be read; the last picture is kept', { cause })
      reading = false
    }
    tellChanges()
  }

  const readNow = () => {
    readUnderWay ??= readOnce().finally(() => {
      readUnderWay = undefined
    })
    return readUnderWay
  }
  const timer = clock.every(readPeriodMs, () => void readNow())

  /** Resolves at the next change, at the latest when it is time to send again, or when the signal aborts. */
  const changeOrResend = async (signal: AbortSignal) => {
    signal.throwIfAborted()
    const woken = Promise.withResolvers<void>()
    const wake = () => woken.resolve()
    const resend = clock.after(watchResendMs, wake)
    wakeWatchers.add(wake)
    signal.addEventListener('abort', wake)
    await woken.promise
    signal.removeEventListener('abort', wake)
    wakeWatchers.delete(wake)
    resend.cancel()
  }

  const leaseOf = ({ edge, state, leaseEndsAt }: KnownEdge): EdgeLease => ({
    ...edge,
    state: stateCodes[state],
    expireTime: clock.nowMicros() + Math.floor((leaseEndsAt - clock.monotonic()) * 1000),
  })

  return {
    async renew(request, scope) {
      checkRenewEdge(request)
      const { edgeId, name, address, zone, connectionCount, connectionLimit, draining, ttl } = request
      const edge: EdgeRecord = { edgeId, name, address, zone, connectionCount, connectionLimit, draining }
      const ttlSeconds = Math.ceil((ttl === undefined ? leasePeriodMs : msFromDuration(ttl)) / 1000)
      await limits.admit(1, () => limits.step(scope.signal, () => store.writeLease(edge, ttlSeconds)))
      const { lapsed } = liveness.renewed(clock.monotonic(), edge, ttlSeconds * 1000)
      if (lapsed) {
        lapses.inc()
        log.warn('edge had lapsed and is told so', { edge_id: edgeId })
      }
      tellChanges()
      return { registryTime: clock.nowMicros(), lapsed }
    },

    list(request) {
      const { size, after } = checkListEdges(request)
      if (!everRead) {
        throw new PushError(
          'REGISTRY_UNAVAILABLE',
          'the leases have not been read yet; try again',
          {},
          { retryAfterMs: readPeriodMs },
        )
      }
      const rest = liveness.picture().filter(({ edge }) => edge.edgeId > after)
      const page = rest.slice(0, size)
      const last = page.at(-1)
      return {
        edges: page.map(leaseOf),
        nextPageToken: rest.length > size && last !== undefined ? pageTokenAfter(last.edge.edgeId) : '',
      }
    },

    async *watch({ signal }) {
      if (watchers >= watchersMax) {
        watchersRefused.inc()
        throw new PushError(
          'RATE_EXCEEDED',
          `${watchers} watches are open; watch on another registry`,
          {},
          { retryAfterMs: 5000 },
        )
      }
      watchersGauge.set(++watchers)
      try {
        let sent: number | undefined
        for (;;) {
          signal.throwIfAborted()
          if (everRead) {
            sent = toldVersion
            yield { edges: liveness.picture().map(leaseOf), registryTime: clock.nowMicros() }
            // What has changed while the reader was slow is told at once.
            if (sent !== toldVersion) continue
          }
          await changeOrResend(signal)
        }
      } finally {
        watchersGauge.set(--watchers)
      }
    },

    stateOf: (edgeId) => stateCodes[liveness.stateOf(edgeId, clock.monotonic())],
    get reading() {
      return reading
    },
    readNow,
    async close() {
      timer.cancel()
      await readUnderWay
    },
  }
}
