import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { ClientFrame, type MessageFrame, ServerFrame } from '../gen/push/v1/device.ts'
import type { ControlFrame } from './frames.ts'
import { jsonCodec } from './json-codec.ts'
import { protobufCodec } from './protobuf-codec.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { test as edgeTest } from './testing/edge-fixture.ts'

const vectorsSchema = z.array(
  z.object({
    name: z.string(),
    protobuf: z.string().optional(),
    frame: z.looseObject({ type: z.string() }).nullable(),
    error: z.string().optional(),
  }),
)

function vectors(file: string) {
  const text = readFileSync(new URL(`../proto/push/v1/vectors/${file}`, import.meta.url), 'utf8')
  return vectorsSchema
    .parse(JSON.parse(text))
    .flatMap(({ protobuf, ...vector }) => (protobuf === undefined ? [] : [{ bytes: Buffer.from(protobuf, 'base64'), ...vector }]))
}

/** The frame as the Protobuf form has it: what is JSON in the other form, as bytes. */
function inBytes({ data, data_base64: base64, ...frame }: Record<string, unknown>): Record<string, unknown> {
  if (frame.type !== 'message' && frame.type !== 'result') return { ...frame, ...(data !== undefined && { data }) }
  if (base64 !== undefined) return { ...frame, data_bytes: Buffer.from(String(base64), 'base64') }
  return { ...frame, ...(data !== undefined && { data_bytes: Buffer.from(JSON.stringify(data)) }) }
}

describe('frames from the device are read as the vectors say', () => {
  test('most vectors have a Protobuf form', () => expect(vectors('client-frames.json').length).toBeGreaterThan(50))

  test.each(vectors('client-frames.json'))('$name', ({ bytes, frame, error }) => {
    const decoded = protobufCodec.decode(bytes)
    if (frame === null) expect(decoded).toMatchObject({ ok: false, reason: error })
    else expect(decoded).toEqual({ ok: true, frame: inBytes(frame) })
  })

  test('a text frame is none of this form, a binary frame none of the other', () => {
    expect(protobufCodec.decode('{"type":"ping"}')).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
    expect(jsonCodec.decode(Buffer.from('{"type":"ping"}'))).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
  })

  test('a result of more than 48 KiB is refused, one of exactly so much is taken, in its own spelling', () => {
    const result = (json: string) =>
      protobufCodec.decode(
        Buffer.from(
          ClientFrame.encode({
            frame: { $case: 'result', value: { id: 'a', status: 'ok', data: undefined, data_bytes: Buffer.from(json) } },
          }).finish(),
        ),
      )
    const longest = JSON.stringify('x'.repeat(48 * 1024 - 2))
    expect(result(longest)).toMatchObject({ ok: true, frame: { data_bytes: Buffer.from(longest) } })
    expect(result(JSON.stringify('x'.repeat(48 * 1024 - 1)))).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
    expect(result('{"big": 12345678901234567890}')).toMatchObject({
      frame: { data_bytes: Buffer.from('{"big": 12345678901234567890}') },
    })
    // As in JSON: nested deeper than can be written again.
    expect(result('['.repeat(20_000) + ']'.repeat(20_000))).toMatchObject({ ok: false, reason: 'INVALID_FRAME' })
  })
})

const byEdge = vectors('server-frames.json').filter(
  ({ name, frame }) => frame !== null && !name.startsWith('Protobuf:') && frame.class !== 'LATER' && frame.redelivered !== false,
)

describe('frames to the device are written as the vectors say, byte for byte', () => {
  test('most vectors can be written', () => expect(byEdge.length).toBeGreaterThan(25))

  test.each(byEdge)('$name', ({ bytes, frame }) => {
    if (frame?.type !== 'message') {
      expect(protobufCodec.encodeControl(frame as ControlFrame).toString('hex')).toBe(bytes.toString('hex'))
      return
    }
    const encoded = protobufCodec.encodeMessage(deliveryOf(frame as Partial<MessageFrame>), 65_536)
    expect(encoded.ok ? encoded.bytes.toString('hex') : encoded.detail).toBe(bytes.toString('hex'))
  })

  test('a message is refused when it would pass the limit, or when something in it cannot be told', () => {
    const delivery = deliveryOf({ data: 'x'.repeat(1000) })
    const encoded = protobufCodec.encodeMessage(delivery, 65_536)
    const size = encoded.ok ? encoded.bytes.length : 0
    expect(size).toBeGreaterThan(1000)
    expect(protobufCodec.encodeMessage(delivery, size)).toMatchObject({ ok: true })
    expect(protobufCodec.encodeMessage(delivery, size - 1)).toMatchObject({ ok: false })
    expect(protobufCodec.encodeMessage(delivery, 500)).toMatchObject({ ok: false })
    expect(protobufCodec.encodeMessage({ ...delivery, confirm: 0 }, 65_536)).toMatchObject({
      ok: false,
      detail: expect.stringContaining('confirm level 0'),
    })
    const signature = { keyId: 'k', nonce: Buffer.alloc(0), notAfter: undefined, value: Buffer.alloc(0) }
    expect(protobufCodec.encodeMessage({ ...delivery, signature }, 65_536)).toMatchObject({ ok: false })
  })

  test('a payload travels as its bytes, whatever it is', () => {
    const payload = Buffer.from([0, 0xff, 0x22])
    const encoded = protobufCodec.encodeMessage({ ...deliveryOf({}), payload, contentType: 'image/png' }, 65_536)
    const frame = encoded.ok ? ServerFrame.decode(encoded.bytes).frame : undefined
    expect(frame).toMatchObject({ $case: 'message', value: { content_type: 'image/png' } })
    expect(frame?.$case === 'message' && Buffer.from(frame.value.data_bytes ?? [])).toEqual(payload)
  })
})

describe('whatever comes, both decoders say what it is or that it is none', () => {
  const seed = 20_261
  const known = vectors('client-frames.json').map(({ bytes }) => bytes)

  test('Protobuf: random bytes, and frames with bytes changed, cut and repeated', () => {
    const mutated = fc
      .tuple(fc.constantFrom(...known), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(), fc.boolean())
      .map(([bytes, changes, cut, twice]) => {
        const copy = Buffer.from(bytes.subarray(0, bytes.length - (cut % 4)))
        for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value
        return twice ? Buffer.concat([copy, copy]) : copy
      })
    const random = fc.uint8Array({ maxLength: 512 }).map((bytes) => Buffer.from(bytes))
    fc.assert(
      fc.property(fc.oneof(mutated, random), (bytes) => {
        const decoded = protobufCodec.decode(bytes)
        if (!decoded.ok) expect(decoded.message.length).toBeLessThan(200)
      }),
      { seed, numRuns: 2_000 },
    )
  })

  test('Protobuf: as deep as a frame allows', () => {
    for (const byte of [0x0b, 0x1b, 0x0a, 0x12, 0xa3]) {
      expect(protobufCodec.decode(Buffer.alloc(65_536, byte))).toMatchObject({ ok: false })
    }
    // A value within a value within a value, as the JSON form's data allows it.
    let value = Buffer.alloc(0)
    while (value.length < 30_000) {
      value = Buffer.concat([
        Buffer.from([0x32]),
        varint(value.length + varint(value.length).length + 1),
        Buffer.from([0x0a]),
        varint(value.length),
        value,
      ])
    }
    const result = Buffer.concat([Buffer.from([0x1a]), varint(value.length), value])
    expect(protobufCodec.decode(Buffer.concat([Buffer.from([0x12]), varint(result.length), result]))).toMatchObject({ ok: false })
  })

  test('JSON: any text, and any value under the names that frames have', () => {
    const value = fc.jsonValue({ maxDepth: 3 })
    const object = fc.record(
      {
        type: fc.oneof(fc.constantFrom('ack', 'result', 'nack', 'ping', 'pong'), value),
        id: value,
        ids: value,
        status: value,
        data: value,
        message: value,
        reason: value,
      },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(
        fc.oneof(
          object.map((frame) => JSON.stringify(frame)),
          fc.json(),
          fc.string(),
        ),
        (text) => {
          const decoded = jsonCodec.decode(text)
          if (!decoded.ok) expect(decoded.message.length).toBeLessThan(200)
        },
      ),
      { seed, numRuns: 2_000 },
    )
  })
})

function varint(value: number): Buffer {
  const bytes: number[] = []
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest])
    bytes.push((rest % 128) | 0x80)
  }
}

edgeTest('a client that offers both forms gets Protobuf, whatever it offers first', async ({ edge }) => {
  await edge.start()
  for (const offered of [
    ['push.v1.json', 'push.v1.protobuf'],
    ['push.v1.protobuf', 'push.v1.json'],
  ]) {
    const device = edge.connect('dev:tv-1', { offered })
    await device.next('welcome')
    expect(device.webSocket.protocol).toBe('push.v1.protobuf')
    device.webSocket.terminate()
  }
})
