import type { Log } from '../../service-kit/log.ts'
import type { QueueState } from './message-queue.ts'
import type { QueueMetrics } from './queue-metrics.ts'

/** What stands in the way of a closed queue. */
export const closedProblem = 'the queue is closed'

/** Whether a queue takes messages, why not, and who wants to know. */
export class QueueStatus {
  readonly #log: Log
  readonly #metrics: QueueMetrics
  readonly #listeners = new Set<(state: QueueState) => void>()
  #answered = false
  #state: QueueState = 'starting'
  #reason: string | undefined = 'the queue has not answered yet'

  constructor(log: Log, metrics: QueueMetrics) {
    this.#log = log
    this.#metrics = metrics
    metrics.ready.set(0)
  }

  get state(): QueueState {
    return this.#state
  }

  get reason(): string | undefined {
    return this.#reason
  }

  /** The queue has answered for the first time: from now on a problem makes it `unavailable`, no longer `starting`. */
  answered(): void {
    this.#answered = true
  }

  /** Takes what stands in the way; undefined: nothing. Tells of changes. */
  set(problem: string | undefined): void {
    this.#change(problem, problem === undefined ? 'info' : 'warn')
  }

  /** The queue has been closed by its owner, so that this is nothing to warn of. */
  close(): void {
    this.#change(closedProblem, 'info')
  }

  #change(problem: string | undefined, level: 'info' | 'warn'): void {
    const state: QueueState = problem === undefined ? 'ready' : this.#answered ? 'unavailable' : 'starting'
    const changed = state !== this.#state || problem !== this.#reason
    const stateChanged = state !== this.#state
    this.#state = state
    this.#reason = problem
    this.#metrics.ready.set(problem === undefined ? 1 : 0)
    if (!changed) return
    if (problem === undefined) this.#log[level]('queue is ready')
    else this.#log[level]('queue is not ready', { problem })
    if (stateChanged) for (const listener of [...this.#listeners]) listener(state)
  }

  onChange(listener: (state: QueueState) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }
}
