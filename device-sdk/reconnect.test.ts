import { expect, test } from 'vitest'
import { createReconnectPolicy, type Ending, isFinalClose } from './reconnect.ts'

const broken: Ending = { code: 1006, openMs: 0, slotInMs: undefined, ownAttempt: false }
const always = (next: number) => createReconnectPolicy({ next: () => next })

test('waits are random from nothing up to a bound that doubles to the cap', () => {
  const longest = always(1)
  const shortest = always(0)
  const waits = Array.from({ length: 9 }, () => longest.after(broken))
  expect(waits).toEqual([1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000])
  expect(shortest.after(broken)).toBe(0)
})

test('only a session that was stable for 30 s sets the back-off to its start', () => {
  const policy = always(1)
  for (let failure = 0; failure < 4; failure += 1) policy.after(broken)
  expect(policy.after({ ...broken, openMs: 29_999 })).toBe(16_000)
  expect(policy.after({ ...broken, openMs: 30_000 })).toBe(1_000)
  expect(policy.after(broken)).toBe(2_000)
})

test('after thousands of failures the wait is still the cap', () => {
  const policy = always(1)
  for (let failure = 0; failure < 5_000; failure += 1) policy.after(broken)
  expect(policy.after(broken)).toBe(60_000)
})

test.each([
  [4005, 30_000, 60_000],
  [4006, 300_000, 600_000],
  [1013, 5_000, 15_000],
])('after %i the device comes back in a window of its own', (code, shortest, longest) => {
  expect(always(0).after({ ...broken, code })).toBe(shortest)
  expect(always(1).after({ ...broken, code })).toBe(longest)
})

test('superseded by what may have been an attempt of its own: no longer wait than after any other end', () => {
  const policy = always(1)
  expect(policy.after({ ...broken, code: 4005, ownAttempt: true })).toBe(1_000)
  expect(policy.after({ ...broken, code: 4005, ownAttempt: true })).toBe(2_000)
  expect(policy.after({ ...broken, code: 4005 })).toBe(60_000)
})

test('after 1013 the window grows with the failures', () => {
  const policy = always(1)
  for (let failure = 0; failure < 10; failure += 1) policy.after({ ...broken, code: 1013 })
  expect(policy.after({ ...broken, code: 1013 })).toBe(65_000)
})

test('a slot that has not begun is waited for, whatever the code', () => {
  expect(always(1).after({ code: 1013, openMs: 0, slotInMs: 77_000, ownAttempt: false })).toBe(77_000)
  expect(always(1).after({ code: 4000, openMs: 60_000, slotInMs: -5, ownAttempt: false })).toBe(1_000)
})

test('the classes of close codes', () => {
  expect([4500, 4501, 4502, 4999].filter(isFinalClose)).toEqual([4500, 4501, 4502, 4999])
  expect([1000, 1001, 1006, 1009, 1011, 1012, 1013, 4000, 4004, 4499, 5000].filter(isFinalClose)).toEqual([])
})
