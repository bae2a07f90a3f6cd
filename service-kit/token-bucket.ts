import type { Clock } from './clock.ts'

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

/** Sums of fractions may miss a whole token by a hair. */
const hair = 1e-6

/** A full bucket. */
export function fullLevel({ burst }: TokenRate, nowMs: number): TokenLevel {
  return { tokens: burst, filledAt: nowMs }
}

/** Whether `count` tokens (default 1) are there now. Takes none. */
export function hasTokens(level: TokenLevel, rate: TokenRate, nowMs: number, count = 1): boolean {
  return tokensAt(level, rate, nowMs) + hair >= count
}

/** Takes `count` tokens (default 1) if all are there; false, and nothing taken, otherwise. */
export function takeToken(level: TokenLevel, rate: TokenRate, nowMs: number, count = 1): boolean {
  level.tokens = tokensAt(level, rate, nowMs)
  level.filledAt = nowMs
  if (level.tokens + hair < count) return false
  level.tokens = Math.max(0, level.tokens - count)
  return true
}

/** Tokens that are there now. */
export function tokensAt(level: TokenLevel, { ratePerSecond, burst }: TokenRate, nowMs: number): number {
  return Math.min(burst, level.tokens + ((nowMs - level.filledAt) / 1000) * ratePerSecond)
}

/** Permits so much a second, and a burst after a pause. */
export interface TokenBucket {
  /** Takes `count` tokens (default 1) if all are there; false, and nothing taken, otherwise. */
  take(count?: number): boolean
  /** Milliseconds, rounded up, until `count` tokens (default 1) are there; Infinity above the burst. Takes none. */
  waitMs(count?: number): number
}

/** Starts full. `burst` is the most it holds. */
export function createTokenBucket(options: TokenRate & { readonly clock: Clock }): TokenBucket {
  const { ratePerSecond, burst, clock } = options
  if (!(ratePerSecond > 0) || !(burst >= 1)) throw new RangeError(`a bucket of ${burst} with ${ratePerSecond}/s permits nothing`)
  const level = fullLevel(options, clock.monotonic())
  return {
    take: (count) => takeToken(level, options, clock.monotonic(), count),
    waitMs(count = 1) {
      if (count > burst) return Number.POSITIVE_INFINITY
      const missing = count - tokensAt(level, options, clock.monotonic()) - hair
      return Math.ceil(Math.max(0, (missing / ratePerSecond) * 1000))
    },
  }
}
