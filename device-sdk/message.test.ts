import { expect, test } from 'vitest'
import { messageFrom } from './message.ts'
import { messageFrame } from './testing/scripted-edge.ts'

const base64 = (text: string) => Buffer.from(text).toString('base64')

test('embedded JSON is the data', () => {
  expect(messageFrom(messageFrame('m', { data: [1, { a: 'b' }] }))).toMatchObject({
    data: [1, { a: 'b' }],
    bytes: undefined,
    contentType: 'application/json',
    redelivered: false,
  })
})

test('signed JSON is parsed, and kept byte for byte', () => {
  const message = messageFrom(messageFrame('m', { data: undefined, data_base64: base64('{ "a":1 }') }))
  expect(message.data).toEqual({ a: 1 })
  expect(new TextDecoder().decode(message.bytes)).toBe('{ "a":1 }')
})

test.each([
  ['text/plain; charset=utf-8', 'grüße', 'grüße'],
  ['application/problem+json', '{"a":1}', { a: 1 }],
  ['application/octet-stream', 'ab', new Uint8Array([97, 98])],
  ['image/png', '', undefined],
])('%s becomes what its type says', (contentType, payload, data) => {
  expect(
    messageFrom(messageFrame('m', { data: undefined, data_base64: base64(payload), content_type: contentType })).data,
  ).toEqual(data)
})

test('JSON that is none is said so', () => {
  expect(() => messageFrom(messageFrame('m', { data: undefined, data_base64: base64('{') }))).toThrow('the payload is not JSON')
})
