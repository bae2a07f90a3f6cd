/** When sessions are asked to leave: evenly, at a rate that may change on the way. Times are ms on one clock. */
export class EvictionPace {
  #intervalMs: number
  #nextAt: number

  /** The first slot begins one interval from now, so that so many sessions take as long as their number over the rate. */
  constructor(ratePerSecond: number, nowMs: number) {
    this.#intervalMs = 1_000 / ratePerSecond
    this.#nextAt = nowMs + this.#intervalMs
  }

  get ratePerSecond(): number {
    return 1_000 / this.#intervalMs
  }

  /** From here on at this rate. Slots that were given stay as they are. */
  change(ratePerSecond: number, nowMs: number): void {
    const lastAt = this.#nextAt - this.#intervalMs
    this.#intervalMs = 1_000 / ratePerSecond
    this.#nextAt = Math.max(nowMs, lastAt + this.#intervalMs)
  }

  /** Gives the slots that begin within `leadMs`, at most so many, each as ms from now. What a stall has missed is not caught up in one burst. */
  take(nowMs: number, leadMs: number, countMax: number): number[] {
    this.#nextAt = Math.max(this.#nextAt, nowMs)
    const slots: number[] = []
    while (slots.length < countMax && this.#nextAt <= nowMs + leadMs) {
      slots.push(this.#nextAt - nowMs)
      this.#nextAt += this.#intervalMs
    }
    return slots
  }
}
