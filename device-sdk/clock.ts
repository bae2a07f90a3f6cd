/** A timer that has not fired yet. */
export interface Timer {
  /** Safe to call more than once, and after the timer has fired. */
  cancel(): void
}

/** Where the SDK gets the time from. Times are milliseconds. */
export interface Clock {
  /** Milliseconds since an arbitrary moment; never goes back, whatever is done to the device's wall clock. */
  monotonic(): number
  /** Runs `run` once after `delayMs` (0 to 2,147,483,647; longer waits are cut to that). */
  after(delayMs: number, run: () => void): Timer
}

const longestTimerMs = 2_147_483_647

/** The clock of the browser or of Node. */
export const systemClock: Clock = {
  monotonic: () => performance.now(),
  after(delayMs, run) {
    const handle = setTimeout(run, Math.min(Math.max(delayMs, 0), longestTimerMs))
    return { cancel: () => clearTimeout(handle) }
  },
}
