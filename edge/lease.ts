import type { RegistryServiceClient } from '../gen/push/internal/v1/registry.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import { randomSuffix } from '../service-kit/ids.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import { durationFromMs } from '../service-kit/time.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** An edge's sign of life. */
export interface Lease {
  /** Resolves when the first attempt to take it has ended, well or not. */
  readonly attempted: Promise<void>
  /** From now on renewals say whether the edge drains; the first one goes out at once. */
  setDraining(draining: boolean): void
  /** Renews no more. The lease then runs out by itself. */
  stop(): Promise<void>
}

/** A lease is renewed so often while it lasts. */
export const renewalsPerLease = 3
/** How soon after a failure, and how long a call may take; less where the lease is short. */
const retryCapMs = 4_000
const callTimeoutMs = 5_000
/** Above it the clocks here and at the registry count as apart. */
export const skewMaxMs = 2_000

/** Names this start of the edge: a restarted edge is another one, so that nobody takes it for the one that held the old sessions. */
export function mintEdgeId(name: string, random: Random): string {
  return `${name}-${randomSuffix(random, 8)}`
}

export function keepLease(options: {
  readonly registry: Pick<RegistryServiceClient<CallBounds>, 'renewEdge'>
  readonly edgeId: string
  readonly name: string
  readonly address: string
  readonly zone: string
  readonly connectionLimit: number
  readonly connectionCount: () => number
  /** How long the lease lasts. */
  readonly ttlMs: number
  /** A registry had seen the lease run out; it holds again by now. */
  readonly onLapsed?: () => void
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
}): Lease {
  const { registry, edgeId, ttlMs, clock, log, metrics } = options
  const stopped = new AbortController()
  const first = Promise.withResolvers<void>()
  const backoff = createBackoff({ baseMs: 500, capMs: Math.min(retryCapMs, ttlMs / 6), random: options.random })
  let draining = false
  let held = false
  let wake = new AbortController()

  const renew = async (): Promise<void> => {
    const sentAt = clock.nowMicros()
    const { registryTime, lapsed } = await registry.renewEdge(
      {
        edgeId,
        name: options.name,
        address: options.address,
        zone: options.zone,
        connectionCount: options.connectionCount(),
        connectionLimit: options.connectionLimit,
        draining,
        ttl: durationFromMs(ttlMs),
      },
      { deadlineMs: Math.min(callTimeoutMs, ttlMs / 3), signal: stopped.signal },
    )
    // The registry looked at its clock somewhere between: the middle is off by half the way at most.
    const offsetMs = (registryTime - (sentAt + clock.nowMicros()) / 2) / 1000
    metrics.clockOffsetSeconds.set(offsetMs / 1000)
    if (Math.abs(offsetMs) > skewMaxMs) {
      metrics.clockSkewed.inc()
      log.warn('the clocks of this edge and of the registry are apart', { offset_ms: Math.round(offsetMs) })
    }
    if (lapsed) {
      metrics.leaseLapses.inc()
      log.warn('the edge lease had lapsed', { edge_id: edgeId })
      options.onLapsed?.()
    }
    if (!held) log.info('edge lease taken', { edge_id: edgeId, ttl_ms: ttlMs })
    held = true
  }

  const keep = async (): Promise<void> => {
    while (!stopped.signal.aborted) {
      const awake = wake.signal
      let waitMs = ttlMs / renewalsPerLease
      try {
        await renew()
        metrics.leaseRenewals.inc({ result: 'renewed' })
        backoff.reset()
      } catch (cause) {
        if (stopped.signal.aborted) return
        metrics.leaseRenewals.inc({ result: 'failed' })
        log.warn('the edge lease could not be renewed; trying again', { edge_id: edgeId, cause: callErrorOf(cause).message })
        waitMs = 500 + backoff.next()
      }
      first.resolve()
      await clock.sleep(waitMs, AbortSignal.any([stopped.signal, awake])).catch(() => {})
    }
  }

  const kept = keep().finally(() => first.resolve())
  return {
    attempted: first.promise,
    setDraining(now) {
      if (draining === now) return
      draining = now
      wake.abort()
      wake = new AbortController()
    },
    stop() {
      stopped.abort()
      return kept
    },
  }
}
