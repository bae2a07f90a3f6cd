import type { Clock } from '../service-kit/clock.ts'
import type { Random } from '../service-kit/random.ts'

/** Tells refused devices when to come back: at random, and over a longer time the more were refused. */
export interface RetryAfter {
  /** Counts one refusal and gives its wait in whole seconds, at least 1. */
  next(): number
}

/** Refusals of late. `countedAt` is ms on the monotonic clock. */
export interface Backlog {
  count: number
  countedAt: number
}

/** The shortest and the longest time over which refused devices are spread. */
const spreadMinSeconds = 10
const spreadMaxSeconds = 300
/** Refusals are forgotten by half in this time. */
const halfLifeMs = 10_000

/** `ratePerSecond`: how many this edge lets in; read at each refusal. */
export function createRetryAfter(options: { clock: Clock; random: Random; readonly ratePerSecond: number }): RetryAfter {
  const { clock, random } = options
  const backlog: Backlog = { count: 0, countedAt: clock.monotonic() }
  return {
    next: () => retryAfterSeconds(backlog, { nowMs: clock.monotonic(), random, ratePerSecond: options.ratePerSecond }),
  }
}

/** Counts one refusal, and gives its wait in whole seconds, 1 to 300. */
export function retryAfterSeconds(backlog: Backlog, options: { nowMs: number; random: Random; ratePerSecond: number }): number {
  const { nowMs, random, ratePerSecond } = options
  backlog.count = backlog.count * 0.5 ** ((nowMs - backlog.countedAt) / halfLifeMs) + 1
  backlog.countedAt = nowMs
  const spread = Math.min(spreadMaxSeconds, spreadMinSeconds + backlog.count / ratePerSecond)
  return 1 + Math.floor(random.next() * spread)
}
