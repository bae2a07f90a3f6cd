import type { UplinkServiceClient } from '../gen/push/internal/v1/uplink.ts'
import { type FlushInboxResponse, FlushResult } from '../gen/push/internal/v1/uplink.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** One session that flushes. */
export interface Flusher {
  readonly deviceId: string
  readonly sessionId: string
  /** The call is made now. False: it is not wanted any more. */
  called(): boolean
  heard(response: FlushInboxResponse): void
  /** The call failed, or its stream ended before the flush did. */
  failed(): void
}

/** Calls FlushInbox for sessions, so many at once. */
export interface FlushCalls {
  /** Queues it, in the order of asking; a session that is queued already stays where it is. */
  ask(flusher: Flusher): void
  /** Gives up all of them. */
  close(): Promise<void>
}

/** How long a router may take to read an inbox, and for the whole of a flush; then it counts as failed. */
export const readTimeoutMs = 10_000
export const flushTimeoutMs = 120_000

export function createFlushCalls(options: {
  readonly uplink: Pick<UplinkServiceClient<CallBounds>, 'flushInbox'>
  readonly edgeId: string
  /** Where routers reach this edge. */
  readonly edgeAddress: string
  readonly concurrentMax: number
  readonly clock: Clock
  readonly log: Log
  readonly metrics: EdgeMetrics
}): FlushCalls {
  const { uplink, edgeId, edgeAddress, concurrentMax, clock, log, metrics } = options
  const queue = new Set<Flusher>()
  const active = new Set<Promise<void>>()
  const stopped = new AbortController()
  let lastFailureAt = Number.NEGATIVE_INFINITY

  const show = () => {
    metrics.flushesActive.set(active.size)
    metrics.flushesQueued.set(queue.size)
  }

  const noteFailure = (cause: unknown) => {
    metrics.flushCallFailures.inc()
    // A router that is away fails them all: one line a second says as much.
    if (stopped.signal.aborted || clock.monotonic() - lastFailureAt < 1_000) return
    lastFailureAt = clock.monotonic()
    log.warn('an inbox could not be flushed; trying again', { cause: callErrorOf(cause).message })
  }

  const call = async (flusher: Flusher): Promise<void> => {
    const { deviceId, sessionId } = flusher
    const unread = new AbortController()
    const readTimer = clock.after(readTimeoutMs, () => unread.abort())
    let over = false
    try {
      const responses = uplink.flushInbox(
        { edgeId, edgeAddress, deviceId, sessionId },
        { deadlineMs: flushTimeoutMs, signal: AbortSignal.any([stopped.signal, unread.signal]) },
      )
      for await (const response of responses) {
        readTimer.cancel()
        // Read to the end: letting go of a stream resets it, and resets are counted against the connection.
        if (over) continue
        over = response.result !== FlushResult.READING
        flusher.heard(response)
      }
      if (!over) noteFailure(new Error('the stream ended before the flush did'))
    } catch (cause) {
      if (!over) noteFailure(cause)
    } finally {
      readTimer.cancel()
      if (!over) flusher.failed()
    }
  }

  const pump = () => {
    for (const flusher of queue) {
      if (active.size >= concurrentMax || stopped.signal.aborted) break
      queue.delete(flusher)
      if (!flusher.called()) continue
      const under = call(flusher).finally(() => {
        active.delete(under)
        pump()
      })
      active.add(under)
    }
    show()
  }

  return {
    ask(flusher) {
      queue.add(flusher)
      pump()
    },
    async close() {
      stopped.abort()
      queue.clear()
      while (active.size > 0) await Promise.all(active)
      show()
    },
  }
}
