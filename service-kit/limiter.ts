import type { Metrics } from './metrics.ts'
import type { Reason } from './push-error.ts'
import { PushError } from './push-error.ts'

/** Lets so many jobs run at once and so many wait. */
export interface Limiter {
  /**
   * Runs the job when its turn comes, in the order of asking, and ends as it ends. Refused at once when the queue is full.
   * A job that still waits when the signal aborts is dropped and rejects with the signal's reason; a running one is not
   * touched.
   */
  run<T>(job: () => Promise<T>, options?: { signal?: AbortSignal }): Promise<T>
  readonly running: number
  readonly queued: number
}

/** What a limiter is made with. */
export interface LimiterOptions {
  /** Names it in errors and as the metrics' label `limiter`. */
  readonly name: string
  /** Most jobs at once. */
  readonly concurrentMax: number
  /** Most jobs that wait; 0 refuses what cannot start at once. */
  readonly queuedMax: number
  readonly metrics: Metrics
  /** What a refused caller is told; BACKLOG_FULL by default. */
  readonly refusal?: Extract<Reason, 'BACKLOG_FULL' | 'RATE_EXCEEDED'>
  /** Passed on to refused callers as the time to wait. Default 1000. */
  readonly retryAfterMs?: number
}

/** Metrics: push_limiter_running, push_limiter_queued, push_limiter_refused_total, push_limiter_dropped_total. */
export function createLimiter(options: LimiterOptions): Limiter {
  const { name, concurrentMax, queuedMax, metrics, refusal = 'BACKLOG_FULL', retryAfterMs = 1000 } = options
  const runningGauge = metrics.gauge('push_limiter_running', 'Jobs under way', ['limiter'])
  const queuedGauge = metrics.gauge('push_limiter_queued', 'Jobs that wait for their turn', ['limiter'])
  const refused = metrics.counter('push_limiter_refused_total', 'Jobs refused because too many waited', ['limiter'])
  const dropped = metrics.counter('push_limiter_dropped_total', 'Jobs whose caller had gone before their turn', ['limiter'])
  // A Set keeps the order of arrival and forgets a dropped one without a search.
  const waiting = new Set<() => void>()
  let running = 0

  const show = () => {
    runningGauge.set({ limiter: name }, running)
    queuedGauge.set({ limiter: name }, waiting.size)
  }

  const enter = (signal: AbortSignal | undefined): Promise<void> | undefined => {
    if (running < concurrentMax) {
      running++
      show()
      return undefined
    }
    if (waiting.size >= queuedMax) {
      refused.inc({ limiter: name })
      const message = `${name} has ${running} requests under way and ${waiting.size} waiting; try again later`
      throw new PushError(refusal, message, { limiter: name }, { retryAfterMs })
    }
    return new Promise((resolve, reject) => {
      const begin = () => {
        signal?.removeEventListener('abort', drop)
        resolve()
      }
      const drop = () => {
        waiting.delete(begin)
        dropped.inc({ limiter: name })
        show()
        reject(signal?.reason)
      }
      waiting.add(begin)
      signal?.addEventListener('abort', drop, { once: true })
      show()
    })
  }

  const leave = () => {
    const [next] = waiting
    if (next === undefined) running--
    else {
      waiting.delete(next) // its place is handed on, so `running` stays
      next()
    }
    show()
  }

  show()
  return {
    async run(job, { signal } = {}) {
      signal?.throwIfAborted()
      await enter(signal)
      try {
        return await job()
      } finally {
        leave()
      }
    },
    get running() {
      return running
    },
    get queued() {
      return waiting.size
    },
  }
}
