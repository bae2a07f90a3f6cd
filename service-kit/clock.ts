/** A timer that has been started. Whoever starts one also cancels it; cancelling twice, or after it ran, does nothing. */
export interface Timer {
  cancel(): void
}

/** Time as the services see it. Only this file and its steered twin in testing/ ask the machine for it. */
export interface Clock {
  /** Wall clock in milliseconds since 1970. May jump when the machine's clock is set. */
  now(): number
  /** Wall clock in whole microseconds since 1970. */
  nowMicros(): number
  /** Milliseconds, with fractions, that only ever grow. For durations; the zero point means nothing. */
  monotonic(): number
  /** Runs once after a delay in milliseconds. Delays of any length hold; a negative one counts as 0. */
  after(delayMs: number, run: () => void): Timer
  /** Runs again and again, first after one period. `periodMs` is at least 1. */
  every(periodMs: number, run: () => void): Timer
  /** Resolves after the delay, or rejects with the signal's reason as soon as the signal aborts. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>
}

/** The longest delay that Node's own timers keep; a longer one would fire at once. */
const nodeDelayMaxMs = 2 ** 31 - 1

/** The machine's clock. Its timers keep the process alive until they ran or were cancelled. */
export const systemClock: Clock = createSystemClock()

function createSystemClock(): Clock {
  const micros = createMicrosReader()
  return {
    now: () => Date.now(),
    nowMicros: micros,
    monotonic: () => performance.now(),
    after: startTimer,
    every: startInterval,
    sleep: (delayMs, signal) => sleepWith(startTimer, delayMs, signal),
  }
}

/** The same timers and monotonic time as `base`, with the wall clock `offsetMs` ahead (or behind, when negative). */
export function shiftedClock(base: Clock, offsetMs: number): Clock {
  return {
    now: () => base.now() + offsetMs,
    nowMicros: () => base.nowMicros() + Math.round(offsetMs * 1000),
    monotonic: () => base.monotonic(),
    after: (delayMs, run) => base.after(delayMs, run),
    every: (periodMs, run) => base.every(periodMs, run),
    sleep: (delayMs, signal) => base.sleep(delayMs, signal),
  }
}

/** The one way to wait for a timer or a signal, whichever comes first, without leaving either behind. */
export function sleepWith(after: Clock['after'], delayMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) {
      reject(signal.reason)
      return
    }
    const onAbort = () => {
      timer.cancel()
      reject(signal?.reason)
    }
    const timer = after(delayMs, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

function startTimer(delayMs: number, run: () => void): Timer {
  let remainingMs = Math.max(0, delayMs)
  let handle: NodeJS.Timeout
  const arm = () => {
    const stepMs = Math.min(remainingMs, nodeDelayMaxMs)
    remainingMs -= stepMs
    handle = setTimeout(() => (remainingMs > 0 ? arm() : run()), stepMs)
  }
  arm()
  return { cancel: () => clearTimeout(handle) }
}

function startInterval(periodMs: number, run: () => void): Timer {
  if (periodMs < 1) throw new RangeError(`a timer cannot repeat every ${periodMs} ms; the period is at least 1 ms`)
  if (periodMs <= nodeDelayMaxMs) {
    const handle = setInterval(run, periodMs)
    return { cancel: () => clearInterval(handle) }
  }
  let timer: Timer
  const arm = () => {
    timer = startTimer(periodMs, () => {
      arm()
      run()
    })
  }
  arm()
  return { cancel: () => timer.cancel() }
}

function createMicrosReader(): () => number {
  // Date.now() has whole milliseconds; the monotonic clock counts what has passed since the last one began. Where the
  // two disagree the wall clock wins, so that a step of the machine's clock is followed at once.
  let anchorMicros = Date.now() * 1000
  let anchorAt = performance.now()
  let last = 0
  return () => {
    last = read()
    return last
  }

  function read(): number {
    const wallMicros = Date.now() * 1000
    const at = performance.now()
    const micros = anchorMicros + Math.floor((at - anchorAt) * 1000)
    if (micros >= wallMicros && micros < wallMicros + 1000) return micros
    // Ahead within the same step: hold at the last microsecond of this millisecond rather than go back.
    if (micros >= wallMicros + 1000 && micros < wallMicros + 2000) return wallMicros + 999
    // A process that stood still between the two readings finds them apart without any step: within this millisecond it does not go back.
    anchorMicros = last >= wallMicros && last < wallMicros + 1000 ? last : wallMicros
    anchorAt = at
    return anchorMicros
  }
}
