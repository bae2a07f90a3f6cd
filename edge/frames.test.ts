import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { MessageFrame } from '../gen/push/v1/device.ts'
import type { ControlFrame } from './frames.ts'
import { decodeClientFrame, encodeControlFrame } from './frames.ts'
import { encodeMessageFrame } from './message-frame.ts'
import { deliveryOf } from './testing/deliveries.ts'

const vectorsSchema = z.array(
  z.object({
    name: z.string(),
    text: z.string().optional(),
    frame: z.looseObject({ type: z.string() }).nullable(),
    error: z.string().optional(),
  }),
)

function vectors(file: string) {
  const text = readFileSync(new URL(`../proto/push/v1/vectors/${file}`, import.meta.url), 'utf8')
  // The others have a Protobuf form only.
  return vectorsSchema.parse(JSON.parse(text)).flatMap(({ text, ...vector }) => (text === undefined ? [] : [{ text, ...vector }]))
}

describe('frames from the device are read as the vectors say', () => {
  test.each(vectors('client-frames.json'))('$name', ({ text, frame, error }) => {
    const decoded = decodeClientFrame(text)
    if (frame === null) expect(decoded).toMatchObject({ ok: false, reason: error })
    else expect(decoded).toEqual({ ok: true, frame })
  })

  test('what is told about a bad frame repeats at most 64 characters of it', () => {
    const decoded = decodeClientFrame(JSON.stringify({ type: 'x'.repeat(60_000) }))
    expect(decoded.ok ? '' : decoded.message.length).toBeLessThan(120)
  })

  test('a result of more than 48 KiB is refused, one of exactly so much is taken', () => {
    const result = (length: number) =>
      decodeClientFrame(JSON.stringify({ type: 'result', id: 'a', status: 'ok', data: 'x'.repeat(length) }))
    expect(result(48 * 1024 - 2)).toMatchObject({ ok: true })
    expect(result(48 * 1024 - 1)).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
  })
})

test('a result nested as deeply as a frame allows is refused, and throws nothing', () => {
  const data = '['.repeat(32_000) + ']'.repeat(32_000)
  const decoded = decodeClientFrame(`{"type":"result","id":"a","status":"ok","data":${data}}`)
  expect(decoded).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
})

// What the edge writes: the vectors whose text has no odd spelling come out of it letter by letter.
const written = vectors('server-frames.json').filter(({ text, frame }) => frame !== null && text === JSON.stringify(frame))

describe('frames to the device are written as the vectors say', () => {
  test('most vectors are of the plain spelling', () => expect(written.length).toBeGreaterThan(15))

  test.each(written.filter(({ frame }) => frame?.type !== 'message'))('$name', ({ text, frame }) => {
    // The vectors are the reference for the shape.
    expect(encodeControlFrame(frame as ControlFrame)).toBe(text)
  })

  test.each(written.filter(({ frame }) => frame?.type === 'message' && frame.class !== 'LATER' && frame.redelivered !== false))(
    '$name',
    ({ text, frame }) => {
      const encoded = encodeMessageFrame(deliveryOf(frame as Partial<MessageFrame>), 65_536)
      expect(encoded).toMatchObject({ ok: true })
      if (encoded.ok) expect(JSON.parse(encoded.bytes.toString())).toEqual(JSON.parse(text))
    },
  )
})

describe('a message frame', () => {
  const textOf = (fields: Parameters<typeof deliveryOf>[0], more: Partial<ReturnType<typeof deliveryOf>> = {}) => {
    const encoded = encodeMessageFrame({ ...deliveryOf(fields), ...more }, 65_536)
    return encoded.ok ? encoded.bytes.toString() : encoded.detail
  }

  test('holds a JSON payload in its own spelling, digit by digit', () => {
    const payload = '{ "big" : 12345678901234567890, "e":1.50e+1,\n"u":"\\u00e9" }'
    expect(textOf({}, { payload: Buffer.from(payload) })).toContain(`"data":${payload},"priority"`)
  })

  test('holds a signed payload as base64, JSON or not', () => {
    const signature = { keyId: 'k', nonce: Buffer.from([1]), notAfter: { seconds: 5, nanos: 7000 }, value: Buffer.from([2]) }
    const frame = JSON.parse(textOf({}, { payload: Buffer.from('{"a":1}'), signature }))
    expect(frame).toMatchObject({
      data_base64: Buffer.from('{"a":1}').toString('base64'),
      signature: { key_id: 'k', nonce: 'AQ==', not_after: 5_000_007, value: 'Ag==' },
    })
    expect(frame).not.toHaveProperty('data')
  })

  test('holds bytes that are not UTF-8 as base64 even when they call themselves JSON', () => {
    const frame = JSON.parse(textOf({}, { payload: Buffer.from([0x22, 0xff, 0x22]) }))
    expect(frame.data_base64).toBe('Iv8i')
  })

  test('quotes what a publisher may choose freely', () => {
    const frame = JSON.parse(textOf({}, { contentType: 'text/plain; x="\\\u0001"', payload: Buffer.from('a') }))
    expect(frame.content_type).toBe('text/plain; x="\\\u0001"')
  })

  test('is refused when it would pass the limit, counting everything in it', () => {
    const delivery = deliveryOf({ data: 'x'.repeat(1000) })
    const encoded = encodeMessageFrame(delivery, 65_536)
    const size = encoded.ok ? encoded.bytes.length : 0
    expect(encodeMessageFrame(delivery, size)).toMatchObject({ ok: true })
    expect(encodeMessageFrame(delivery, size - 1)).toMatchObject({ ok: false, detail: expect.stringContaining(`${size} bytes`) })
    expect(encodeMessageFrame(delivery, 500)).toMatchObject({ ok: false })
  })

  test('is refused when the class, priority, confirm level or signature cannot be told to the device', () => {
    const odd = 9 as unknown as 1
    expect(textOf({}, { messageClass: odd })).toContain('message class 9')
    expect(textOf({}, { priority: odd })).toContain('priority 9')
    expect(textOf({}, { confirm: 0 })).toContain('confirm level 0')
    const signature = { keyId: 'k', nonce: Buffer.alloc(0), notAfter: { seconds: 1e15, nanos: 0 }, value: Buffer.alloc(0) }
    expect(textOf({}, { signature })).toContain('signature')
  })
})
