import { expect, test } from 'vitest'
import { EdgeState } from '../gen/push/v1/operations.ts'
import { bar, createOutput, isoTime, nameOf, printable, table } from './output.ts'

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

test('progress takes one line of a terminal, and leaves it when something else is said; a file gets none', () => {
  const written: string[] = []
  const side = { write: (text: string) => written.push(text), isTTY: true, columns: 6 }
  const output = createOutput(side, side)
  output.progress('1 of 9999')
  output.progress('2 of')
  output.talk('done')
  output.data('x')
  expect(written).toEqual(['\r\u001b[2K1 of ', '\r\u001b[2K2 of', '\r\u001b[2K', 'done\n', 'x\n'])
  const file: string[] = []
  const plain = { write: (text: string) => file.push(text) }
  createOutput(plain, plain).progress('1 of 9')
  expect(file).toEqual([])
})

test('a bar shows the share that is done, and is full only at the end', () => {
  expect(bar(0)).toBe(`[${' '.repeat(30)}]   0 %`)
  expect(bar(0.999)).toBe(`[${'#'.repeat(29)} ]  99 %`)
  expect(bar(1)).toBe(`[${'#'.repeat(30)}] 100 %`)
})
