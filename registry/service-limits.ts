import { PushError } from '../service-kit/errors.ts'
import { createLimiter } from '../service-kit/limiter.ts'
import type { Metrics } from '../service-kit/metrics.ts'

/**
 * How full the registry may be, as a share of all it takes, for a kind of work to be let in still. So what can wait is
 * sacrificed first, and registrations last: a device that cannot register is lost to everybody. Leases have a rest of
 * their own, as an edge without one is taken for gone with all its devices.
 */
const shareByWork = {
  receipts: 0.5,
  counts: 0.6,
  inbox: 0.7,
  lookups: 0.85,
  registrations: 0.98,
  leases: 1,
} as const

/** A kind of work with limits of its own. */
export type Work = keyof typeof shareByWork

/** What one kind of work may do. */
export interface WorkLimits {
  /** Runs a call of so many items, or refuses it at once with RATE_EXCEEDED when the registry is too full for its kind. */
  admit<T>(itemCount: number, call: () => Promise<T>): Promise<T>
  /** Runs one step at the store when its turn comes, unless the call's signal has aborted before. */
  step<T>(signal: AbortSignal, run: () => Promise<T>): Promise<T>
}

/** What the limits are made with. */
export interface ServiceLimitsOptions {
  /** Most items of all calls at once; at least 2 000, so that a whole batch of any kind fits an idle registry. */
  readonly itemsMax: number
  /** Most steps at the store at once, for each kind of work. */
  readonly storeStepsMax: number
  readonly metrics: Metrics
}

/** Opens the limits: one pool of items, and steps apart for each kind, so that none waits behind another's queue. */
export function createServiceLimits(options: ServiceLimitsOptions): Record<Work, WorkLimits> {
  const { itemsMax, storeStepsMax, metrics } = options
  const itemsGauge = metrics.gauge('push_registry_items', 'Items of calls under way', ['work'])
  const refused = metrics.counter('push_registry_refused_calls_total', 'Calls refused because the registry was too full', [
    'work',
  ])
  let items = 0

  const limitsOf = (work: Work): WorkLimits => {
    const bound = Math.floor(itemsMax * shareByWork[work])
    // Each admitted item waits for one step at a time: the queue cannot be fuller than the registry.
    const steps = createLimiter({ name: `registry_${work}`, concurrentMax: storeStepsMax, queuedMax: itemsMax, metrics })
    return {
      async admit(itemCount, call) {
        if (items + itemCount > bound) {
          refused.inc({ work })
          const message = `the registry has ${items} items under way and takes ${work} up to ${bound}; try again later`
          throw new PushError('RATE_EXCEEDED', message, {}, { retryAfterMs: 500 })
        }
        items += itemCount
        itemsGauge.inc({ work }, itemCount)
        try {
          return await call()
        } finally {
          items -= itemCount
          itemsGauge.dec({ work }, itemCount)
        }
      },
      step: (signal, run) => steps.run(run, { signal }),
    }
  }
  return {
    receipts: limitsOf('receipts'),
    counts: limitsOf('counts'),
    inbox: limitsOf('inbox'),
    lookups: limitsOf('lookups'),
    registrations: limitsOf('registrations'),
    leases: limitsOf('leases'),
  }
}
