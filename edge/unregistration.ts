import { Status } from 'nice-grpc-common'
import type { RegistryServiceClient, SessionKey } from '../gen/push/internal/v1/registry.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** Removes the rows of sessions that have ended, however long the registry is away. */
export interface Unregistration {
  /** Queues it; the same session twice is one, with epoch 0 where the epochs differ. */
  add(key: SessionKey): void
  readonly size: number
  /** Resolves when nothing is left, or after `graceMs`; what is left then is given up, and lives on until its time to live ends. */
  close(graceMs: number): Promise<void>
}

/** Most sessions that wait; above it the oldest is given up. */
export const unregisterQueuedMax = 100_000

const batchMax = 500
const callTimeoutMs = 5_000
const retryBaseMs = 250
const retryCapMs = 10_000

export function createUnregistration(options: {
  readonly registry: Pick<RegistryServiceClient<CallBounds>, 'unregister'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
  readonly queuedMax?: number
}): Unregistration {
  const { registry, clock, random, log, metrics, queuedMax = unregisterQueuedMax } = options
  // Oldest first, as a Map keeps the order of insertion.
  const queue = new Map<string, SessionKey>()
  const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random })
  const stopped = new AbortController()
  let working: Promise<void> | undefined
  let inCall = 0
  let failing = false
  // So many more go out one by one.
  let alone = 0

  const add = (key: SessionKey) => {
    const name = `${key.deviceId} ${key.sessionId}`
    const queued = queue.get(name)
    queue.set(name, queued !== undefined && queued.epoch !== key.epoch ? { ...key, epoch: 0 } : key)
    for (const oldest of queue.keys()) {
      if (queue.size <= queuedMax) break
      queue.delete(oldest)
      metrics.unregisterGivenUp.inc({ reason: 'queue_full' })
    }
    show()
    // At the end of the turn, so that what ends together goes out together.
    working ??= new Promise<void>((resolve) => setImmediate(resolve)).then(work)
  }

  const show = () => metrics.unregisterQueued.set(queue.size + inCall)

  const work = async (): Promise<void> => {
    while (queue.size > 0 && !stopped.signal.aborted) {
      const batch = [...queue.values()].slice(0, alone > 0 ? 1 : batchMax)
      if (alone > 0) alone--
      for (const key of batch) queue.delete(`${key.deviceId} ${key.sessionId}`)
      inCall = batch.length
      try {
        await registry.unregister({ sessions: batch }, { deadlineMs: callTimeoutMs, signal: stopped.signal })
        inCall = 0
        backoff.reset()
        if (failing) log.info('rows of ended sessions are removed again', { queued: queue.size })
        failing = false
      } catch (cause) {
        inCall = 0
        // One wrong key fails the whole call, and would for ever: each then goes alone.
        const rejected = callErrorOf(cause).status === Status.INVALID_ARGUMENT
        alone = rejected ? Math.max(alone, batch.length) : alone
        if (rejected && batch.length === 1) {
          metrics.unregisterGivenUp.inc({ reason: 'rejected' })
          log.error('the registry takes no such key', { ...batch[0], cause: callErrorOf(cause).message })
          continue
        }
        for (const key of batch) requeue(key)
        if (stopped.signal.aborted) break
        metrics.unregisterFailures.inc()
        if (!failing) log.warn('rows of ended sessions cannot be removed; trying again', { cause: callErrorOf(cause).message })
        failing = true
        await clock.sleep(retryBaseMs + backoff.next(), stopped.signal).catch(() => {})
      }
      show()
    }
    working = undefined
    show()
  }

  /** Behind what came meanwhile; when the bound is reached it is this one that is given up. */
  const requeue = (key: SessionKey) => {
    const name = `${key.deviceId} ${key.sessionId}`
    const queued = queue.get(name)
    if (queued === undefined && queue.size >= queuedMax) metrics.unregisterGivenUp.inc({ reason: 'queue_full' })
    else queue.set(name, queued !== undefined && queued.epoch !== key.epoch ? { ...key, epoch: 0 } : key)
  }

  return {
    add,
    get size() {
      return queue.size + inCall
    },
    async close(graceMs) {
      const timer = clock.after(graceMs, () => stopped.abort())
      while (working !== undefined) await working
      timer.cancel()
      stopped.abort()
      if (queue.size === 0) return
      metrics.unregisterGivenUp.inc({ reason: 'shutdown' }, queue.size)
      log.warn('rows of ended sessions were left behind', { session_count: queue.size })
      queue.clear()
    },
  }
}
