import type { LateAnswer, UplinkServiceClient } from '../gen/push/internal/v1/uplink.ts'
import { ReportResult } from '../gen/push/internal/v1/uplink.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** Reports answers that no stream waits for, through any router, until one has taken them. */
export interface LateAnswers {
  /** Queues it. The same answer to the same message twice is one. */
  add(answer: LateAnswer): void
  readonly size: number
  /** Resolves when nothing is left, or after `graceMs`; what is left then is given up. */
  close(graceMs: number): Promise<void>
}

/** Most answers that wait, and most of one device; above it the oldest is given up, so that no device crowds out the others. */
export const lateAnswersMax = 65_536
export const lateAnswersPerDeviceMax = 1_024

const batchMax = 256
const batchBytesMax = 1024 * 1024
const callTimeoutMs = 10_000
const retryBaseMs = 250
const retryCapMs = 10_000

/** How a report ends for good. */
const endings = new Map<ReportResult, string>([
  [ReportResult.DONE, 'done'],
  [ReportResult.NOT_IMPLEMENTED, 'not_implemented'],
])

interface Queued {
  readonly answer: LateAnswer
  readonly bytes: number
}

export function createLateAnswers(options: {
  readonly uplink: Pick<UplinkServiceClient<CallBounds>, 'report'>
  readonly edgeId: string
  /** Most bytes that wait. */
  readonly bytesMax: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
  readonly queuedMax?: number
}): LateAnswers {
  const { uplink, edgeId, bytesMax, clock, random, log, metrics, queuedMax = lateAnswersMax } = options
  // Oldest first, as a Map keeps the order of insertion.
  const queue = new Map<string, Queued>()
  const countByDevice = new Map<string, number>()
  const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random })
  const stopped = new AbortController()
  let queuedBytes = 0
  let inCall = 0
  let failing = false
  let working: Promise<void> | undefined

  const show = () => metrics.lateAnswersQueued.set(queue.size + inCall)

  const put = (key: string, queued: Queued) => {
    const { deviceId } = queued.answer
    take(key)
    queue.set(key, queued)
    queuedBytes += queued.bytes
    countByDevice.set(deviceId, (countByDevice.get(deviceId) ?? 0) + 1)
  }

  const take = (key: string): Queued | undefined => {
    const found = queue.get(key)
    if (found === undefined) return undefined
    const { deviceId } = found.answer
    queue.delete(key)
    queuedBytes -= found.bytes
    const left = (countByDevice.get(deviceId) ?? 1) - 1
    if (left === 0) countByDevice.delete(deviceId)
    else countByDevice.set(deviceId, left)
    return found
  }

  const shrink = (deviceId: string) => {
    if ((countByDevice.get(deviceId) ?? 0) > lateAnswersPerDeviceMax) {
      const oldest = [...queue].find(([, { answer }]) => answer.deviceId === deviceId)
      if (oldest !== undefined) giveUp(oldest[0])
    }
    for (const key of queue.keys()) {
      if (queue.size <= queuedMax && queuedBytes <= bytesMax) break
      giveUp(key)
    }
  }

  const giveUp = (key: string) => {
    take(key)
    metrics.lateAnswers.inc({ result: 'queue_full' })
  }

  const nextBatch = (): [string, Queued][] => {
    const batch: [string, Queued][] = []
    let bytes = 0
    for (const [key, queued] of queue) {
      if (batch.length > 0 && (batch.length >= batchMax || bytes + queued.bytes > batchBytesMax)) break
      bytes += queued.bytes
      batch.push([key, queued])
    }
    for (const [key] of batch) take(key)
    return batch
  }

  /** Behind what came meanwhile; a newer one of the same message and kind stays. */
  const requeue = (batch: readonly [string, Queued][]) => {
    for (const [key, queued] of batch) {
      if (queue.has(key)) continue
      put(key, queued)
      shrink(queued.answer.deviceId)
    }
  }

  /** Returns those that are to be repeated. */
  const report = async (batch: [string, Queued][]): Promise<[string, Queued][]> => {
    const items = batch.map(([, { answer }]) => ({ item: { $case: 'lateAnswer' as const, value: answer } }))
    const { results } = await uplink.report({ edgeId, items }, { deadlineMs: callTimeoutMs, signal: stopped.signal })
    return batch.filter((_, index) => {
      const name = endings.get(results[index] ?? ReportResult.RETRY)
      if (name !== undefined) metrics.lateAnswers.inc({ result: name })
      return name === undefined
    })
  }

  const work = async (): Promise<void> => {
    while (queue.size > 0 && !stopped.signal.aborted) {
      const batch = nextBatch()
      inCall = batch.length
      let problem = ''
      try {
        const again = await report(batch)
        inCall = 0
        requeue(again)
        if (again.length > 0) problem = `a router asks to repeat ${again.length}`
      } catch (cause) {
        inCall = 0
        requeue(batch)
        problem = callErrorOf(cause).message
      }
      if (stopped.signal.aborted) break
      if (problem === '') {
        if (failing) log.info('late answers are reported again', { queued: queue.size })
        failing = false
        backoff.reset()
      } else {
        metrics.lateAnswerFailures.inc()
        if (!failing) log.warn('late answers cannot be reported; trying again', { problem })
        failing = true
        await clock.sleep(retryBaseMs + backoff.next(), stopped.signal).catch(() => {})
      }
      show()
    }
    working = undefined
    show()
  }

  return {
    add(answer) {
      const { deviceId, messageId, kind, detail, result } = answer
      const bytes = 128 + deviceId.length + messageId.length + detail.length * 3 + (result?.data.length ?? 0)
      put(`${deviceId} ${messageId} ${kind}`, { answer, bytes })
      shrink(deviceId)
      show()
      // At the end of the turn, so that what comes together goes out together.
      working ??= new Promise<void>((resolve) => setImmediate(resolve)).then(work)
    },
    get size() {
      return queue.size + inCall
    },
    async close(graceMs) {
      const timer = clock.after(graceMs, () => stopped.abort())
      while (working !== undefined) await working
      timer.cancel()
      stopped.abort()
      if (queue.size === 0) return
      metrics.lateAnswers.inc({ result: 'shutdown' }, queue.size)
      log.warn('late answers were left unreported', { count: queue.size })
      queue.clear()
    },
  }
}
