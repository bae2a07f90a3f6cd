import { expect, test } from 'vitest'
import { EdgeState } from '../gen/push/v1/operations.ts'
import { isoTime, nameOf, printable, table } from './output.ts'

test('text from elsewhere cannot steer the terminal or break the line', () => {
  expect(printable('a\u001b[2Jb\nc\td\u009b\u007f\u2028é')).toBe('a\\u001b[2Jb\\nc\\td\\u009b\\u007f\\u2028é')
})

test('columns are as wide as they must be', () => {
  expect(
    table(
      ['ID', 'STATE'],
      [
        ['edge-12345678', 'LIVE'],
        ['e', 'SUSPECT'],
      ],
    ),
  ).toEqual(['ID             STATE', 'edge-12345678  LIVE', 'e              SUSPECT'])
  expect(table(['ID'], [])).toEqual(['ID'])
})

test('a value of an enum that this version does not know is told as its number', () => {
  expect(nameOf(EdgeState, EdgeState.SUSPECT)).toBe('SUSPECT')
  expect(nameOf(EdgeState, 77)).toBe('77')
})

test('times are told in UTC', () => {
  expect(isoTime({ seconds: 1_767_225_600, nanos: 123_456_000 })).toBe('2026-01-01T00:00:00.123Z')
  expect(isoTime(undefined)).toBeUndefined()
})
