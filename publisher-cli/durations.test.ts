import { expect, test } from 'vitest'
import { parseDurationMs } from './durations.ts'

test.each([
  ['0', 0],
  ['500ms', 500],
  ['10s', 10_000],
  ['5m', 300_000],
  ['1h', 3_600_000],
  ['1.5h', 5_400_000],
  ['30d', 2_592_000_000],
])('%s is %i ms', (text, ms) => {
  expect(parseDurationMs(text)).toBe(ms)
})

test.each(['', '10', '-1s', '10 s', '1h30m', 's', '1w', '1constructor', '1e9s', '9999999999s'])(
  '"%s" is refused with the forms that are possible',
  (text) => {
    expect(() => parseDurationMs(text)).toThrow('such as 500ms, 10s, 5m, 1h or 30d; or 0')
  },
)
