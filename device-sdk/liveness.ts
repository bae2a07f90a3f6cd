import type { Clock, Timer } from './clock.ts'

/** Watches one connection for silence. */
export interface Liveness {
  /** Something came from the edge. */
  heard(): void
  stop(): void
}

/**
 * A browser shows no WebSocket ping to the page, so silence alone proves nothing: after `intervalMs` without a frame `probe` is called, and
 * after as much again `dead`, once. A device that slept through its timer is not judged by it; it probes anew.
 */
export function watchLiveness(options: { clock: Clock; intervalMs: number; probe: () => void; dead: () => void }): Liveness {
  const { clock, intervalMs, probe, dead } = options
  let heardAt = clock.monotonic()
  let probed = false
  let timer: Timer

  function arm(delayMs: number): void {
    const dueAt = clock.monotonic() + delayMs
    timer = clock.after(delayMs, () => judge(clock.monotonic() - dueAt))
  }

  function judge(lateMs: number): void {
    const silentMs = clock.monotonic() - heardAt
    if (silentMs < intervalMs) {
      probed = false
      arm(intervalMs - silentMs)
      return
    }
    if (probed && lateMs < intervalMs / 2) {
      dead()
      return
    }
    probed = true
    // Armed first: a probe that cannot be sent may end the connection, and stop this watch.
    arm(intervalMs)
    probe()
  }

  arm(intervalMs)
  return {
    heard() {
      heardAt = clock.monotonic()
    },
    stop: () => timer.cancel(),
  }
}
