import { expect, test } from 'vitest'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createRetryAfter } from './retry-after.ts'

test('the time to wait is at random, grows with the backlog up to five minutes, and shrinks again', async () => {
  const clock = new SteeredClock()
  const retryAfter = createRetryAfter({
    clock,
    random: { next: () => 0.999_999, bytes: () => new Uint8Array() },
    ratePerSecond: 10,
  })
  expect(retryAfter.next()).toBe(11)
  for (let index = 0; index < 998; index++) retryAfter.next()
  expect(retryAfter.next()).toBe(110)
  for (let index = 0; index < 10_000; index++) retryAfter.next()
  expect(retryAfter.next()).toBe(300)
  await clock.advance(300_000)
  expect(retryAfter.next()).toBe(11)
})
