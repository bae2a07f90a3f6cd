import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'

/** A registry whose clock is further from the store's than this is not ready: its epochs would outrank everybody's, or nobody's. */
export const clockSkewMaxMs = 10_000
/** How often the clocks are compared. */
export const clockCheckPeriodMs = 60_000
/** How soon again when the comparison failed. */
export const clockRetryMs = 5_000
/** How often readiness is looked at between. */
export const readinessPeriodMs = 250

/** What readiness is made of. */
export interface ReadinessOptions {
  /** Asks the store for its wall clock, in µs since 1970. */
  readonly storeClockMicros: () => Promise<number>
  /** Whether the store answers. */
  readonly storeAnswers: () => boolean
  /** Told at the start and at every change. */
  readonly report: (ready: boolean) => void
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** Watches whether this registry may serve: the store answers, and its clock and ours agree. */
export interface Readiness {
  readonly ready: boolean
  close(): Promise<void>
}

/** Compares the clocks once, reports, and goes on watching. Never rejects. */
export async function watchReadiness(options: ReadinessOptions): Promise<Readiness> {
  const { storeClockMicros, storeAnswers, report, clock, log, metrics } = options
  const skewGauge = metrics.gauge('push_registry_clock_skew_seconds', "The store's clock minus the registry's")
  const readyGauge = metrics.gauge('push_registry_ready', '1 when this registry may serve')
  let clocksAgree: boolean | undefined
  let ready: boolean | undefined
  let checkAt = 0
  let checkUnderWay: Promise<void> | undefined

  const compare = async () => {
    const sentAt = clock.nowMicros()
    try {
      const storeMicros = await storeClockMicros()
      const heardAt = clock.nowMicros()
      const skewMs = (storeMicros - (sentAt + heardAt) / 2) / 1000
      skewGauge.set(skewMs / 1000)
      // An answer that took long says only so much.
      const agree = Math.abs(skewMs) - (heardAt - sentAt) / 2000 <= clockSkewMaxMs
      if (agree !== clocksAgree && !agree)
        log.error('clock is too far from the store; not ready', { skew_ms: Math.round(skewMs) })
      if (agree && clocksAgree === false) log.info('clock agrees with the store again', { skew_ms: Math.round(skewMs) })
      clocksAgree = agree
      checkAt = clock.monotonic() + clockCheckPeriodMs
    } catch (cause) {
      log.warn('clock could not be compared with the store', { cause })
      // What the last comparison found still holds; before the first one nothing is known.
      checkAt = clock.monotonic() + clockRetryMs
    }
  }
  const look = () => {
    const now = storeAnswers() && clocksAgree === true
    if (now === ready) return
    ready = now
    readyGauge.set(now ? 1 : 0)
    report(now)
  }

  await compare()
  look()
  const timer = clock.every(readinessPeriodMs, () => {
    if (checkUnderWay === undefined && clock.monotonic() >= checkAt) {
      checkUnderWay = compare().finally(() => {
        checkUnderWay = undefined
      })
    }
    look()
  })
  return {
    get ready() {
      return ready === true
    },
    async close() {
      timer.cancel()
      await checkUnderWay
    },
  }
}
