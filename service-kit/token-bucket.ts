import type { Clock } from './clock.ts'

/** Permits so much a second, and a burst after a pause. */
export interface TokenBucket {
  /** Takes `count` tokens (default 1) if all are there; false, and nothing taken, otherwise. */
  take(count?: number): boolean
  /** Milliseconds, rounded up, until `count` tokens (default 1) are there; Infinity above the burst. Takes none. */
  waitMs(count?: number): number
}

/** Starts full. `burst` is the most it holds. */
export function createTokenBucket(options: { ratePerSecond: number; burst: number; clock: Clock }): TokenBucket {
  const { ratePerSecond, burst, clock } = options
  if (!(ratePerSecond > 0) || !(burst >= 1)) throw new RangeError(`a bucket of ${burst} with ${ratePerSecond}/s permits nothing`)
  let tokens = burst
  let filledAt = clock.monotonic()

  const fill = () => {
    const at = clock.monotonic()
    tokens = Math.min(burst, tokens + ((at - filledAt) / 1000) * ratePerSecond)
    filledAt = at
  }

  return {
    take(count = 1) {
      fill()
      // Sums of fractions may miss a whole token by a hair.
      if (tokens + 1e-6 < count) return false
      tokens = Math.max(0, tokens - count)
      return true
    },
    waitMs(count = 1) {
      if (count > burst) return Number.POSITIVE_INFINITY
      fill()
      return Math.ceil(Math.max(0, ((count - tokens - 1e-6) / ratePerSecond) * 1000))
    },
  }
}

/** What a bucket permits; may differ from call to call. */
export interface TokenRate {
  readonly ratePerSecond: number
  /** The most it holds. */
  readonly burst: number
}

/** A bucket as two numbers, for those who keep very many. Tokens as they were at `filledAt`, on the monotonic clock in ms. */
export interface TokenLevel {
  tokens: number
  filledAt: number
}

/** Tokens that are there now. */
export function tokensAt(level: TokenLevel, { ratePerSecond, burst }: TokenRate, nowMs: number): number {
  return Math.min(burst, level.tokens + ((nowMs - level.filledAt) / 1000) * ratePerSecond)
}

/** Takes one token if it is there; false, and nothing taken, otherwise. */
export function takeToken(level: TokenLevel, rate: TokenRate, nowMs: number): boolean {
  const tokens = tokensAt(level, rate, nowMs)
  // Sums of fractions may miss a whole token by a hair.
  const taken = tokens + 1e-6 >= 1
  level.tokens = taken ? Math.max(0, tokens - 1) : tokens
  level.filledAt = nowMs
  return taken
}
