import { expect, test } from 'vitest'
import { SteeredClock } from './testing/steered-clock.ts'
import { createTokenBucket } from './token-bucket.ts'

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
