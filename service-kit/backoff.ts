import type { Random } from './random.ts'

/** How long to wait before the next attempt, longer each time. */
export interface Backoff {
  /** The next wait in whole milliseconds: even from 0 to the present ceiling, which then doubles up to the cap. */
  next(): number
  /** Starts again at the base. For after a success. */
  reset(): void
}

/** The first wait is below `baseMs`, every wait below `capMs`. Full jitter keeps many clients from coming back together. */
export function createBackoff(options: { baseMs: number; capMs: number; random: Random }): Backoff {
  const { baseMs, capMs, random } = options
  if (!(baseMs > 0) || !(capMs >= baseMs)) throw new RangeError(`back-off from ${baseMs} to ${capMs} ms makes no sense`)
  let ceilingMs = baseMs
  return {
    next() {
      const waitMs = Math.floor(random.next() * ceilingMs)
      ceilingMs = Math.min(capMs, ceilingMs * 2)
      return waitMs
    },
    reset() {
      ceilingMs = baseMs
    },
  }
}
