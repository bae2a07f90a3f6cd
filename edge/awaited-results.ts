import type { EdgeMetrics } from './edge-metrics.ts'
import type { Entry } from './entry.ts'

/** Who is told to let go of one. */
export interface AwaitedOwner {
  forget(entry: Entry): void
}

/** Most acknowledged messages of all sessions whose result is awaited; above it the oldest is let go. */
export const awaitedResultsMax = 65_536

/** The messages of all sessions that are acknowledged and whose result is still to come. A result that finds none goes up as a late answer. */
export class AwaitedResults {
  readonly #metrics: EdgeMetrics
  readonly #max: number
  // Oldest first, as a Map keeps the order of insertion.
  readonly #owners = new Map<Entry, AwaitedOwner>()

  constructor(metrics: EdgeMetrics, max = awaitedResultsMax) {
    this.#metrics = metrics
    this.#max = max
  }

  get size(): number {
    return this.#owners.size
  }

  add(entry: Entry, owner: AwaitedOwner): void {
    this.#owners.set(entry, owner)
    const [oldest] = this.#owners
    if (oldest === undefined || this.#owners.size <= this.#max) return
    this.#metrics.awaitedForgotten.inc()
    oldest[1].forget(oldest[0])
  }

  remove(entry: Entry): void {
    this.#owners.delete(entry)
  }
}
