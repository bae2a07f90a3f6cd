import { expect, test } from 'vitest'
import { CloseCode } from '../gen/push/v1/device.ts'
import { closeCodeName, closeKinds, closeReason, closeReasonLimitBytes } from './close-codes.ts'

test('every close code has one kind, and its text fits a close frame', () => {
  const kinds = Object.values(closeKinds)
  expect(new Set(kinds.map(({ code }) => code)).size).toBe(kinds.length)
  expect(new Set(kinds.map(({ name }) => name)).size).toBe(kinds.length)
  for (const { text } of kinds) expect(closeReason(text)).toBe(text)
})

test('4000 to 4499 and the registered codes say come back, 4500 and above do not', () => {
  const reconnecting = Object.values(closeKinds).filter(({ reconnect }) => reconnect)
  expect(reconnecting.map(({ code }) => code)).toContain(CloseCode.SUPERSEDED)
  expect(reconnecting.map(({ code }) => code)).toContain(CloseCode.TRY_AGAIN_LATER)
  for (const { code, reconnect } of Object.values(closeKinds)) expect(reconnect).toBe(code < 4500)
})

test('a reason of any length is cut to what a close frame holds, at a whole character', () => {
  expect(closeReason('x'.repeat(123))).toHaveLength(123)
  expect(closeReason('x'.repeat(5000))).toHaveLength(closeReasonLimitBytes)
  const cut = closeReason('é🚀'.repeat(100))
  expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(closeReasonLimitBytes)
  expect(cut).not.toContain('\ufffd')
})

test('names of close codes are a closed set', () => {
  expect(closeCodeName(4003)).toBe('slow_consumer')
  expect(closeCodeName(1006)).toBe('abnormal')
  expect(closeCodeName(3999)).toBe('other')
})
