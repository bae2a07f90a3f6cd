import { expect, test } from 'vitest'
import { SteeredClock } from './testing/steered-clock.ts'
import { createTokenBucket, takeToken, tokensAt } from './token-bucket.ts'

test('a burst is allowed, then so much a second', async () => {
  const clock = new SteeredClock()
  const bucket = createTokenBucket({ ratePerSecond: 2, burst: 3, clock })
  expect([bucket.take(), bucket.take(), bucket.take(), bucket.take()]).toEqual([true, true, true, false])
  expect(bucket.waitMs()).toBe(500)
  await clock.advance(499)
  expect(bucket.take()).toBe(false)
  await clock.advance(1)
  expect(bucket.take()).toBe(true)
})

test('a long pause saves up no more than the burst', async () => {
  const clock = new SteeredClock()
  const bucket = createTokenBucket({ ratePerSecond: 10, burst: 2, clock })
  await clock.advance(60_000)
  expect(bucket.take(2)).toBe(true)
  expect(bucket.take()).toBe(false)
})

test('what is more than the burst never comes', () => {
  const bucket = createTokenBucket({ ratePerSecond: 10, burst: 2, clock: new SteeredClock() })
  expect(bucket.take(3)).toBe(false)
  expect(bucket.waitMs(3)).toBe(Number.POSITIVE_INFINITY)
  expect(bucket.take(2)).toBe(true)
})

test('a bucket of two numbers takes the rate that is in force', () => {
  const level = { tokens: 2, filledAt: 0 }
  const rate = { ratePerSecond: 1, burst: 2 }
  expect([takeToken(level, rate, 0), takeToken(level, rate, 0), takeToken(level, rate, 0)]).toEqual([true, true, false])
  expect([takeToken(level, rate, 999), takeToken(level, rate, 1_000)]).toEqual([false, true])
  // A larger burst fills from where it was; a smaller one cuts.
  expect(tokensAt(level, { ratePerSecond: 10, burst: 50 }, 3_000)).toBe(20)
  expect(tokensAt(level, { ratePerSecond: 10, burst: 5 }, 3_000)).toBe(5)
})
