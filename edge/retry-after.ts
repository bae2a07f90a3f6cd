import type { Clock } from '../service-kit/clock.ts'
import type { Random } from '../service-kit/random.ts'

/** Tells refused devices when to come back: at random, and over a longer time the more were refused. */
export interface RetryAfter {
  /** Counts one refusal and gives its wait in whole seconds, at least 1. */
  next(): number
}

/** The shortest and the longest time over which refused devices are spread. */
const spreadMinSeconds = 10
const spreadMaxSeconds = 300
/** Refusals are forgotten by half in this time. */
const halfLifeMs = 10_000

/** `ratePerSecond`: how many this edge lets in. */
export function createRetryAfter(options: { clock: Clock; random: Random; ratePerSecond: number }): RetryAfter {
  const { clock, random, ratePerSecond } = options
  let backlog = 0
  let countedAt = clock.monotonic()
  return {
    next() {
      const nowMs = clock.monotonic()
      backlog = backlog * 0.5 ** ((nowMs - countedAt) / halfLifeMs) + 1
      countedAt = nowMs
      const spread = Math.min(spreadMaxSeconds, spreadMinSeconds + backlog / ratePerSecond)
      return 1 + Math.floor(random.next() * spread)
    },
  }
}
