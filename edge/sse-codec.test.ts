import { expect, test } from 'vitest'
import { eventText, sseCodec } from './sse-codec.ts'
import { deliveryOf } from './testing/deliveries.ts'

const textOf = (delivery: Parameters<typeof sseCodec.encodeMessage>[0]) => {
  const encoded = sseCodec.encodeMessage(delivery, 65_536)
  return encoded.ok ? encoded.bytes.toString() : encoded.detail
}

test('a message is one event with the id of the message and its frame in one line', () => {
  const delivery = deliveryOf({ id: 'm1', data: { a: 1 } })
  const [event, id, data = '', ...rest] = textOf(delivery).split('\n')
  expect([event, id, ...rest]).toEqual(['event: message', 'id: m1', '', ''])
  expect(JSON.parse(data.replace(/^data: /, ''))).toMatchObject({ type: 'message', id: 'm1', data: { a: 1 } })
})

test('line ends in a payload, wherever JSON has them, end no line of the event', () => {
  const payload = Buffer.from('{\r\n"a":\n"x\\n\\r",\r"b":[1,\n\n2]}\n')
  const text = textOf({ ...deliveryOf({ id: 'm1' }), payload })
  expect(text.split(/\r\n|\r|\n/)).toHaveLength(5)
  const data = /^data: (.*)$/m.exec(text)?.[1] ?? ''
  expect(JSON.parse(data).data).toEqual({ a: 'x\n\r', b: [1, 2] })
})

test('an id that would break the event is left out of it', () => {
  expect(textOf({ ...deliveryOf({}), messageId: 'a\nevent: close' })).toMatch(/^event: message\ndata: \{.*\}\n\n$/)
})

test('the whole event counts against the limit', () => {
  const delivery = deliveryOf({ id: 'm1', data: 'x'.repeat(1_000) })
  const size = Buffer.byteLength(textOf(delivery))
  expect(sseCodec.encodeMessage(delivery, size)).toMatchObject({ ok: true })
  expect(sseCodec.encodeMessage(delivery, size - 1)).toMatchObject({
    ok: false,
    detail: expect.stringContaining(`${size} bytes`),
  })
})

test('an error frame does not go by the name that an EventSource uses for its own errors', () => {
  expect(eventText({ type: 'error', reason: 'OVERLOADED', message: '' })).toBe(
    'event: problem\ndata: {"type":"error","reason":"OVERLOADED","message":""}\n\n',
  )
  expect(eventText({ type: 'close', code: 4001, reason: 'x' }, 1_500.4)).toBe(
    'retry: 1500\nevent: close\ndata: {"type":"close","code":4001,"reason":"x"}\n\n',
  )
})

test('nothing comes from a device by an event stream', () => {
  expect(sseCodec.decode('{"type":"ping"}')).toMatchObject({ ok: false })
})
