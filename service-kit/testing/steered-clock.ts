import type { Clock, Timer } from '../clock.ts'
import { sleepWith } from '../clock.ts'

interface PendingTimer {
  dueMs: number
  order: number
  periodMs: number | undefined
  run: () => void
}

/** A clock that stands still until a test moves it. Timers run in the order in which they fall due. */
export class SteeredClock implements Clock {
  #elapsedMs = 0
  #startMs: number
  #order = 0
  #pending = new Set<PendingTimer>()

  /** `startMs` is the wall clock at the start; monotonic time starts at 0. */
  constructor(startMs = 1_800_000_000_000) {
    this.#startMs = startMs
  }

  /** Puts the wall clock to this time, as where something besides has the machine's own. Monotonic time and timers stay. */
  setWall(nowMs: number): void {
    this.#startMs = nowMs - this.#elapsedMs
  }

  now(): number {
    return Math.floor(this.#startMs + this.#elapsedMs)
  }

  nowMicros(): number {
    return Math.floor((this.#startMs + this.#elapsedMs) * 1000)
  }

  monotonic(): number {
    return this.#elapsedMs
  }

  after(delayMs: number, run: () => void): Timer {
    return this.#add(Math.max(0, delayMs), undefined, run)
  }

  every(periodMs: number, run: () => void): Timer {
    if (periodMs < 1) throw new RangeError(`a timer cannot repeat every ${periodMs} ms; the period is at least 1 ms`)
    return this.#add(periodMs, periodMs, run)
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepWith((ms, run) => this.after(ms, run), delayMs, signal)
  }

  /** How many timers somebody still has to cancel or wait for. 0 when everything has been cleaned up. */
  get pendingTimers(): number {
    return this.#pending.size
  }

  /** Moves time on, running what falls due in order. Promises settle before, between and after the timers. */
  async advance(ms: number): Promise<void> {
    await settle()
    const untilMs = this.#elapsedMs + ms
    for (;;) {
      const timer = this.#nextDue(untilMs)
      if (timer === undefined) break
      this.#elapsedMs = Math.max(this.#elapsedMs, timer.dueMs)
      if (timer.periodMs === undefined) this.#pending.delete(timer)
      else {
        timer.dueMs += timer.periodMs
        timer.order = this.#order++
      }
      timer.run()
      await settle()
    }
    this.#elapsedMs = untilMs
  }

  /** Sets the wall clock forward or back; timers and monotonic time do not notice. */
  stepWall(ms: number): void {
    this.#startMs += ms
  }

  /** Lets time pass without running timers, as when the event loop is blocked. The next `advance` runs them late. */
  stall(ms: number): void {
    this.#elapsedMs += ms
  }

  #add(delayMs: number, periodMs: number | undefined, run: () => void): Timer {
    const timer = { dueMs: this.#elapsedMs + delayMs, order: this.#order++, periodMs, run }
    this.#pending.add(timer)
    return { cancel: () => void this.#pending.delete(timer) }
  }

  #nextDue(untilMs: number): PendingTimer | undefined {
    let next: PendingTimer | undefined
    for (const timer of this.#pending) {
      if (timer.dueMs > untilMs) continue
      if (next === undefined || timer.dueMs < next.dueMs || (timer.dueMs === next.dueMs && timer.order < next.order)) next = timer
    }
    return next
  }
}

/** Lets everything that can go on without time go on: promises, ticks and immediates that start one another. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
}
