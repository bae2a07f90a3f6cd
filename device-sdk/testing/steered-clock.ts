import type { Clock } from '../clock.ts'

/** A clock that stands still until a test moves it. */
export class SteeredClock implements Clock {
  #now = 0
  #timers: { at: number; run: () => void }[] = []

  monotonic(): number {
    return this.#now
  }

  after(delayMs: number, run: () => void): { cancel: () => void } {
    const timer = { at: this.#now + delayMs, run }
    this.#timers.push(timer)
    return {
      cancel: () => {
        this.#timers = this.#timers.filter((other) => other !== timer)
      },
    }
  }

  get pendingTimers(): number {
    return this.#timers.length
  }

  /** Moves on by `ms`, running each timer at its time, and lets promises settle before, between and after. */
  async advance(ms: number): Promise<void> {
    const until = this.#now + ms
    await settled()
    for (;;) {
      const due = this.#timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.#timers = this.#timers.filter((timer) => timer !== due)
      this.#now = Math.max(this.#now, due.at)
      due.run()
      await settled()
    }
    this.#now = until
  }

  /** Moves on as a device does that sleeps: what became due meanwhile runs late, at the end. */
  async sleepThrough(ms: number): Promise<void> {
    this.#now += ms
    await this.advance(0)
  }
}

/** Lets everything that waits for promises only run to its end. */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}
