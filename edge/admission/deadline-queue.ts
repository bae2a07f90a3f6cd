import type { Clock, Timer } from '../../service-kit/clock.ts'

/** Things that have the same time from when they were added, with one timer for all. */
export interface DeadlineQueue<T> {
  add(item: T): void
  /** Its time is not over; does nothing when it is not here. */
  remove(item: T): void
  readonly size: number
  /** The one that has been here longest. */
  readonly oldest: T | undefined
  /** The time has changed, also for those that are here. */
  changed(): void
  stop(): void
}

/** `expired` is called once for each item that is still here after `timeoutMs`. */
export function createDeadlineQueue<T>(options: {
  readonly clock: Clock
  readonly timeoutMs: () => number
  readonly expired: (item: T) => void
}): DeadlineQueue<T> {
  const { clock, timeoutMs, expired } = options
  // First come, first due.
  const addedAt = new Map<T, number>()
  let timer: Timer | undefined

  const arm = () => {
    timer?.cancel()
    timer = undefined
    const [oldest] = addedAt.values()
    if (oldest !== undefined) timer = clock.after(Math.max(0, oldest + timeoutMs() - clock.monotonic()), check)
  }
  const check = () => {
    const limit = clock.monotonic() - timeoutMs()
    for (const [item, at] of addedAt) {
      if (at > limit) break
      addedAt.delete(item)
      expired(item)
    }
    arm()
  }

  return {
    add(item) {
      addedAt.delete(item)
      addedAt.set(item, clock.monotonic())
      if (timer === undefined) arm()
    },
    remove(item) {
      addedAt.delete(item)
      // Left running otherwise: it is cheaper to look once in vain than to set a timer for each that goes.
      if (addedAt.size === 0) arm()
    },
    get size() {
      return addedAt.size
    },
    get oldest() {
      const [first] = addedAt.keys()
      return first
    },
    changed: arm,
    stop() {
      addedAt.clear()
      arm()
    },
  }
}
