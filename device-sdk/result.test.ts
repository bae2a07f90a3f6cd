import { expect, test } from 'vitest'
import { failedResult, RESULT_DATA_LIMIT_BYTES, resultOf } from './result.ts'

test('what is null or false is data, what JSON does not know is none', () => {
  expect(resultOf(false)).toEqual({ status: 'ok', data: false })
  expect(resultOf(null)).toEqual({ status: 'ok', data: null })
  expect(resultOf(Symbol('s'))).toEqual({ status: 'ok' })
})

test('the limit counts bytes of JSON, not characters', () => {
  const fits = 'é'.repeat((RESULT_DATA_LIMIT_BYTES - 2) / 2)
  expect(resultOf(fits).status).toBe('ok')
  expect(resultOf(`${fits}x`).status).toBe('failed')
})

test('a value that holds itself fails in words', () => {
  const circle: { self?: unknown } = {}
  circle.self = circle
  expect(resultOf(circle)).toMatchObject({ status: 'failed', message: expect.stringContaining('JSON') })
})

test('words are cut to the 1,024 characters that the protocol takes, at a whole character', () => {
  expect(failedResult('x'.repeat(2_000)).message).toHaveLength(1_024)
  expect(failedResult(`${'x'.repeat(1_023)}😀`).message?.isWellFormed()).toBe(true)
})
