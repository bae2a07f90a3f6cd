import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import { fullLevel, type TokenLevel, type TokenRate, takeToken } from '../../service-kit/token-bucket.ts'

/** So many lines of each reason: a flood of refusals must not become a flood of lines. */
const lineRate: TokenRate = { ratePerSecond: 2, burst: 20 }

/** Logs refusals. Those left out are told as `left_out` by the next line of their reason; the metrics count all. */
export function createRefusalLog(log: Log, clock: Clock) {
  const byReason = new Map<string, { level: TokenLevel; leftOut: number }>()
  return (reason: string, facts: Record<string, unknown>): void => {
    const nowMs = clock.monotonic()
    const of = byReason.get(reason) ?? { level: fullLevel(lineRate, nowMs), leftOut: 0 }
    byReason.set(reason, of)
    if (!takeToken(of.level, lineRate, nowMs)) {
      of.leftOut++
      return
    }
    log.info('device refused', { reason, ...facts, ...(of.leftOut > 0 && { left_out: of.leftOut }) })
    of.leftOut = 0
  }
}
