import type { Clock } from './clock.ts'

/** Notices when the event loop stood still. */
export interface StallMonitor {
  /**
   * Milliseconds that the loop stands still as of now and that `onStall` has not been told yet; 0 when it runs. For
   * timers that fire right after a stall and before the monitor's own.
   */
  currentStallMs(): number
  stop(): void
}

/** What a monitor is made with. */
export interface StallMonitorOptions {
  /** The shortest stall that counts. Default 1000. */
  readonly thresholdMs?: number
  /** How often the loop is felt. Default 200. */
  readonly periodMs?: number
  /** Told once a stall is over, with its length: extend deadlines by it. */
  readonly onStall: (stallMs: number) => void
}

/** Starts to watch. */
export function createStallMonitor(clock: Clock, options: StallMonitorOptions): StallMonitor {
  const { thresholdMs = 1000, periodMs = 200, onStall } = options
  let beatAt = clock.monotonic()

  const currentStallMs = () => {
    const lateMs = clock.monotonic() - beatAt - periodMs
    return lateMs >= thresholdMs ? lateMs : 0
  }
  const timer = clock.every(periodMs, () => {
    const stallMs = currentStallMs()
    beatAt = clock.monotonic()
    if (stallMs > 0) onStall(stallMs)
  })
  return { currentStallMs, stop: () => timer.cancel() }
}
