import type { ItemError } from '../gen/push/internal/v1/registry.ts'
import type { Clock } from '../service-kit/clock.ts'
import { PushError } from '../service-kit/errors.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import type { Work } from './service-limits.ts'

/** Items of one batch that are worked on at once, so that a big batch does not keep small ones waiting. */
export const batchConcurrency = 64

/** A call's signal aborts at its deadline, or when its caller has gone: no step is begun after that. */
export interface CallScope {
  readonly signal: AbortSignal
}

/** Maps in order of the items, a bounded number at once. Ends at the first failure. */
export async function eachOf<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = []
  let next = 0
  const worker = async () => {
    for (let at = next++; at < items.length; at = next++) results[at] = await work(items[at] as T)
  }
  await Promise.all(Array.from({ length: Math.min(batchConcurrency, items.length) }, worker))
  return results
}

/**
 * Works on every item, and fails with the first failure only when all have been tried: what is done need not be done again
 * when the call is repeated.
 */
export async function allOf<T>(items: readonly T[], { signal }: CallScope, work: (item: T) => Promise<void>): Promise<void> {
  const failures: unknown[] = []
  await eachOf(items, (item) => work(item).catch((error) => void failures.push(error)))
  signal.throwIfAborted()
  if (failures.length > 0) throw failures[0]
}

/** Turns what one item of a batch failed with into its answer. */
export type ItemErrorOf = (work: Work, error: unknown, scope: CallScope) => ItemError

/** Failures of the store are logged at most this often, in ms. */
const warnPeriodMs = 1_000

/** The error of one item, counted and logged; what ends the whole call is thrown. */
export function createItemErrors(options: { clock: Clock; log: Log; metrics: Metrics }): ItemErrorOf {
  const { clock, log, metrics } = options
  const itemErrors = metrics.counter('push_registry_item_errors_total', 'Items of batches that failed', ['work', 'reason'])
  // While the store is away every item of every call fails: one line a second says as much.
  let warnAgainAt = Number.NEGATIVE_INFINITY
  let unsaidCount = 0
  const warnOfFailure = (work: Work, { reason, cause }: PushError) => {
    unsaidCount += 1
    if (clock.monotonic() < warnAgainAt) return
    log.warn('items failed', { work, reason, item_count: unsaidCount, cause })
    warnAgainAt = clock.monotonic() + warnPeriodMs
    unsaidCount = 0
  }
  return (work, error, { signal }) => {
    signal.throwIfAborted()
    const known = error instanceof PushError ? error : undefined
    const reason = known?.reason ?? 'INTERNAL'
    itemErrors.inc({ work, reason })
    if (known === undefined) log.error('item failed by a defect', { work, cause: error })
    else warnOfFailure(work, known)
    return { reason, message: known?.message ?? 'the registry made a mistake; its log tells more' }
  }
}
