import type { Clock } from '../service-kit/clock.ts'
import { createStallMonitor } from '../service-kit/stall-monitor.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** The time that counts against devices, and the last word before one is given up. */
export interface Liveness {
  /** Monotonic time in ms without the stalls of this process: a device is not late because the edge did not look. */
  now(): number
  /** The moment of that time on the monotonic clock, as far as it is known now. */
  monotonicAt(livenessMs: number): number
  /** Calls `verdict` after the bytes that wait in the sockets by now have been read. */
  afterReading(verdict: () => void): void
  stop(): void
}

/** Stalls of more than 1 s are left out. */
export function createLiveness(clock: Clock, metrics: EdgeMetrics): Liveness {
  let stalledMs = 0
  const monitor = createStallMonitor(clock, {
    onStall(stallMs) {
      stalledMs += stallMs
      metrics.stalls.inc()
      metrics.stalledSeconds.inc(stallMs / 1000)
    },
  })
  let verdicts: (() => void)[] = []
  // Timers come first in a turn of the event loop, then the sockets, then immediates.
  const judge = () => {
    const due = verdicts
    verdicts = []
    for (const verdict of due) verdict()
  }
  return {
    now: () => clock.monotonic() - stalledMs - monitor.currentStallMs(),
    monotonicAt: (livenessMs) => livenessMs + stalledMs + monitor.currentStallMs(),
    afterReading(verdict) {
      if (verdicts.length === 0) setImmediate(judge)
      verdicts.push(verdict)
    },
    stop: () => monitor.stop(),
  }
}
