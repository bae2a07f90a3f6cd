import { describe, expect, test } from 'vitest'
import { createBackoff } from './backoff.ts'
import { isPushId, randomSuffix, uuidV7, uuidV8FromHash } from './ids.ts'
import { seededRandom, systemRandom } from './random.ts'
import { SteeredClock } from './testing/steered-clock.ts'

test('seeded randomness repeats itself and spreads evenly', () => {
  const one = seededRandom(7)
  const two = seededRandom(7)
  const values = Array.from({ length: 10_000 }, () => one.next())
  expect(Array.from({ length: 10_000 }, () => two.next())).toEqual(values)
  expect(seededRandom(8).next()).not.toBe(values[0])
  const tenths = new Array(10).fill(0)
  for (const value of values) tenths[Math.floor(value * 10)]++
  for (const count of tenths) expect(count).toBeGreaterThan(850)
})

describe('ids', () => {
  test('a UUID version 7 carries its time, version and variant, and later ones sort later', async () => {
    const clock = new SteeredClock(0x0123456789ab)
    const first = uuidV7(clock, systemRandom)
    expect(first).toMatch(/^01234567-89ab-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    await clock.advance(1)
    expect(uuidV7(clock, systemRandom) > first).toBe(true)
  })

  test('a UUID version 8 is the same for the same texts and tells apart where they are cut', () => {
    const id = uuidV8FromHash(['ab', 'c'])
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(uuidV8FromHash(['ab', 'c'])).toBe(id)
    expect(uuidV8FromHash(['a', 'bc'])).not.toBe(id)
    expect(uuidV8FromHash(['abc'])).not.toBe(id)
  })

  test('a suffix draws every letter equally often', () => {
    const suffix = randomSuffix(seededRandom(1), 36_000)
    expect(suffix).toMatch(/^[a-z0-9]{36000}$/)
    const counts = new Map<string, number>()
    for (const letter of suffix) counts.set(letter, (counts.get(letter) ?? 0) + 1)
    expect(counts.size).toBe(36)
    for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(150)
  })

  test.each([
    ['device-1', true],
    ['a.b_c:d~e', true],
    ['x'.repeat(128), true],
    ['x'.repeat(129), false],
    ['', false],
    ['a/b', false],
    ['a b', false],
    ['ä', false],
    ['a\n', false],
  ])('%j is an id: %s', (text, expected) => {
    expect(isPushId(text)).toBe(expected)
  })
})

describe('back-off', () => {
  test('the ceiling doubles up to the cap, waits are anywhere below it, and reset starts over', () => {
    let value = 0.999999
    const backoff = createBackoff({ baseMs: 100, capMs: 1000, random: { next: () => value, bytes: () => new Uint8Array() } })
    expect([1, 2, 3, 4, 5, 6].map(() => backoff.next())).toEqual([99, 199, 399, 799, 999, 999])
    value = 0
    expect(backoff.next()).toBe(0)
    backoff.reset()
    value = 0.5
    expect(backoff.next()).toBe(50)
  })

  test('bounds that make no sense are refused', () => {
    expect(() => createBackoff({ baseMs: 0, capMs: 10, random: systemRandom })).toThrow(RangeError)
    expect(() => createBackoff({ baseMs: 20, capMs: 10, random: systemRandom })).toThrow(RangeError)
  })
})
