import { describe, expect, test } from 'vitest'
import { durationFromMs, microsFromTimestamp, msFromDuration, timestampFromMicros } from './time.ts'

describe('timestamps', () => {
  test.each([0, 1, 999_999, 1_800_000_000_123_456, -1, -1_000_001])('%d µs come back as they went', (micros) => {
    const timestamp = timestampFromMicros(micros)
    expect(timestamp.nanos).toBeGreaterThanOrEqual(0)
    expect(microsFromTimestamp(timestamp)).toBe(micros)
  })

  test('nanoseconds are cut off', () => {
    expect(microsFromTimestamp({ seconds: 1, nanos: 1_999 })).toBe(1_000_001)
  })

  test('what is no time is refused', () => {
    expect(() => timestampFromMicros(1.5)).toThrow(RangeError)
    expect(() => timestampFromMicros(Number.NaN)).toThrow(RangeError)
    expect(() => microsFromTimestamp({ seconds: 1, nanos: -1 })).toThrow(RangeError)
    expect(() => microsFromTimestamp({ seconds: 1, nanos: 1_000_000_000 })).toThrow(RangeError)
    expect(() => microsFromTimestamp({ seconds: 253_402_300_800, nanos: 0 })).toThrow(RangeError)
  })
})

describe('durations', () => {
  test.each([0, 1, 999, 1000, 90_061, -1500])('%d ms come back as they went', (ms) => {
    expect(msFromDuration(durationFromMs(ms))).toBe(ms)
  })

  test('a part of a millisecond is rounded up, so that nothing fires too early', () => {
    expect(msFromDuration({ seconds: 0, nanos: 1 })).toBe(1)
    expect(msFromDuration({ seconds: 2, nanos: 1_000_001 })).toBe(2002)
  })

  test('what is no duration is refused', () => {
    expect(() => msFromDuration({ seconds: 1, nanos: -1 })).toThrow(RangeError)
    expect(() => msFromDuration({ seconds: 315_576_000_001, nanos: 0 })).toThrow(RangeError)
    expect(() => durationFromMs(Number.POSITIVE_INFINITY)).toThrow(RangeError)
  })
})
