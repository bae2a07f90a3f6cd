import type { Clock, Timer } from '../../service-kit/clock.ts'

/** What a hold needs. */
export interface HoldOptions {
  readonly clock: Clock
  /** When the message expires, in µs since the epoch. */
  readonly expireTime: number
  /** How long it may be held, in ms. */
  readonly holdTimeMs: number
  /** Whether the hold stands still while the registry does not answer. A caller who waits does not. */
  readonly stops: boolean
  /** The message has expired, or its hold has ended. Called again and again until `cancel`. */
  readonly onLimit: () => void
}

/** How long `onLimit` is put off by `later`, in ms. */
const laterMs = 250

/**
 * How long a message may be held here: until it expires, or its hold ends. The hold stands still while the call that the message waits for is not
 * answered, because that says nothing about the device; the message's own time goes on.
 */
export class Hold {
  readonly #options: HoldOptions
  #timer: Timer | undefined
  #endsAt = 0
  #failsSince: number | undefined

  constructor(options: HoldOptions) {
    this.#options = options
  }

  /** The hold runs from here. */
  start(): void {
    this.#endsAt = this.#options.clock.monotonic() + this.#options.holdTimeMs
    this.#arm()
  }

  /** When it ends, on the monotonic clock, as things stand. */
  get endsAt(): number {
    return this.#endsAt
  }

  get expired(): boolean {
    return this.#options.expireTime <= this.#options.clock.nowMicros()
  }

  /** It is over, and does not stand still. */
  get ended(): boolean {
    return this.#options.clock.monotonic() >= this.#endsAt && !(this.#options.stops && this.failing)
  }

  /** The last call was not answered. */
  get failing(): boolean {
    return this.#failsSince !== undefined
  }

  /** A call was not answered: the hold stands still from here, or goes on standing still. */
  fails(): void {
    this.#failsSince ??= this.#options.clock.monotonic()
  }

  /** A call was answered: the hold goes on where it stood. */
  answered(): void {
    if (this.#failsSince === undefined) return
    if (this.#options.stops) this.#endsAt += this.#options.clock.monotonic() - this.#failsSince
    this.#failsSince = undefined
    this.#arm()
  }

  /** Not now: `onLimit` is called again a moment later. */
  later(): void {
    this.#timer?.cancel()
    this.#timer = this.#options.clock.after(laterMs, this.#options.onLimit)
  }

  cancel(): void {
    this.#timer?.cancel()
  }

  #arm(): void {
    const { clock, expireTime, onLimit } = this.#options
    const untilExpiry = (expireTime - clock.nowMicros()) / 1_000
    const untilEnd = this.#endsAt - clock.monotonic()
    this.#timer?.cancel()
    this.#timer = clock.after(Math.max(0, Math.min(untilExpiry, untilEnd)) + 1, onLimit)
  }
}
