import { describe, expect, test } from 'vitest'
import { ConfirmLevel, type Message, MessageClass, Priority, ReceiptMode } from '../../gen/push/v1/message.ts'
import { PushError } from '../../service-kit/errors.ts'
import { emptyMessage } from '../dispatch/testing/dispatch-bench.ts'
import { checkMessage, nowOrNeverMs, payloadBytesMax, ttlDefaultMs } from './message-check.ts'

const message = (more: Partial<Message>): Message => ({ ...emptyMessage(), target: { $case: 'deviceId', value: 'd' }, ...more })

function refusal(given: Message | undefined): { reason: string; fields: string[] } {
  try {
    checkMessage(given)
  } catch (error) {
    if (error instanceof PushError) return { reason: error.reason, fields: error.violations.map(({ field }) => field) }
    throw error
  }
  throw new Error('the message was taken')
}

test('defaults are filled in', () => {
  const { message: checked, target, lifeMs } = checkMessage(message({}))
  expect(target).toEqual({ $case: 'deviceId', value: 'd' })
  expect(lifeMs).toBe(ttlDefaultMs)
  expect(checked).toMatchObject({
    messageClass: MessageClass.USER,
    priority: Priority.NORMAL,
    confirm: ConfirmLevel.ACKNOWLEDGED,
    receipts: ReceiptMode.FINAL,
    contentType: 'application/json',
    ttl: { seconds: 3_600, nanos: 0 },
  })
})

test('time to live 0 lives just long enough to get through', () => {
  expect(checkMessage(message({ ttl: { seconds: 0, nanos: 0 } })).lifeMs).toBe(nowOrNeverMs)
})

describe('refused, with the reason and the field', () => {
  const long = 'x'.repeat(129)
  const bytes = (length: number) => Buffer.alloc(length, 0x20)
  const signature = { keyId: 'k', nonce: bytes(8), notAfter: { seconds: 1, nanos: 0 }, value: bytes(64) }
  const rows: [what: string, given: Message | undefined, reason: string, field: string][] = [
    ['nothing', undefined, 'INVALID_MESSAGE', 'message'],
    ['no target', message({ target: undefined }), 'TARGET_MISSING', 'message.target'],
    ['an empty device id', message({ target: { $case: 'deviceId', value: '' } }), 'INVALID_MESSAGE', 'message.device_id'],
    [
      'a device id with a space',
      message({ target: { $case: 'deviceId', value: 'a b' } }),
      'INVALID_MESSAGE',
      'message.device_id',
    ],
    ['a device id too long', message({ target: { $case: 'deviceId', value: long } }), 'INVALID_MESSAGE', 'message.device_id'],
    ['a malformed account id', message({ target: { $case: 'accountId', value: 'ä' } }), 'INVALID_MESSAGE', 'message.account_id'],
    ['an idempotency key too long', message({ idempotencyKey: long }), 'INVALID_MESSAGE', 'message.idempotency_key'],
    ['a name with a slash', message({ name: 'a/b' }), 'INVALID_MESSAGE', 'message.name'],
    ['a collapse key too long', message({ collapseKey: 'x'.repeat(65) }), 'INVALID_MESSAGE', 'message.collapse_key'],
    ['a content type with a line break', message({ contentType: 'text/plain\n' }), 'INVALID_MESSAGE', 'message.content_type'],
    ['a payload one byte too large', message({ payload: bytes(payloadBytesMax + 1) }), 'PAYLOAD_TOO_LARGE', 'message.payload'],
    ['JSON that is not JSON', message({ payload: Buffer.from('{"a":') }), 'INVALID_MESSAGE', 'message.payload'],
    ['JSON that is not UTF-8', message({ payload: Buffer.from([0x22, 0xff, 0x22]) }), 'INVALID_MESSAGE', 'message.payload'],
    ['a negative time to live', message({ ttl: { seconds: -1, nanos: 0 } }), 'TTL_OUT_OF_RANGE', 'message.ttl'],
    ['a time to live over 30 days', message({ ttl: { seconds: 30 * 86_400, nanos: 1 } }), 'TTL_OUT_OF_RANGE', 'message.ttl'],
    ['a time to live of mixed signs', message({ ttl: { seconds: 1, nanos: -1 } }), 'TTL_OUT_OF_RANGE', 'message.ttl'],
    ['a class that does not exist', message({ messageClass: 99 as MessageClass }), 'INVALID_MESSAGE', 'message.message_class'],
    ['a priority that does not exist', message({ priority: 99 as Priority }), 'INVALID_MESSAGE', 'message.priority'],
    [
      'a result timeout too short',
      message({ resultTimeout: { seconds: 0, nanos: 1 } }),
      'INVALID_MESSAGE',
      'message.result_timeout',
    ],
    [
      'a signature without key',
      message({ signature: { ...signature, keyId: '' } }),
      'INVALID_MESSAGE',
      'message.signature.key_id',
    ],
    [
      'a signature with a short nonce',
      message({ signature: { ...signature, nonce: bytes(7) } }),
      'INVALID_MESSAGE',
      'message.signature.nonce',
    ],
    [
      'a signature without end',
      message({ signature: { ...signature, notAfter: undefined } }),
      'INVALID_MESSAGE',
      'message.signature.not_after',
    ],
    [
      'an empty signature',
      message({ signature: { ...signature, value: bytes(0) } }),
      'INVALID_MESSAGE',
      'message.signature.value',
    ],
  ]
  test.each(rows)('%s', (_what, given, reason, field) => {
    expect(refusal(given)).toEqual({ reason, fields: [field] })
  })
})

test('every field that is wrong is named at once', () => {
  expect(refusal(message({ target: undefined, name: '/', ttl: { seconds: -1, nanos: 0 } })).fields).toEqual([
    'message.target',
    'message.name',
    'message.ttl',
  ])
})

test('bounds are inclusive, and another content type need not be JSON', () => {
  expect(() =>
    checkMessage(message({ payload: Buffer.alloc(payloadBytesMax, 0xff), contentType: 'application/octet-stream' })),
  ).not.toThrow()
  expect(() => checkMessage(message({ ttl: { seconds: 30 * 86_400, nanos: 0 }, name: 'x'.repeat(64) }))).not.toThrow()
  expect(() => checkMessage(message({ payload: Buffer.alloc(0) }))).not.toThrow()
})

test('a JSON type with parameters is JSON too', () => {
  expect(refusal(message({ contentType: 'application/json; charset=utf-8', payload: Buffer.from('x') })).fields).toEqual([
    'message.payload',
  ])
})
