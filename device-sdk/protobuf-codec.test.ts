import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { jsonCodec } from './codec.ts'
import { connectDevice } from './device.ts'
import { type ClientFrame, parseServerFrame } from './frames.ts'
import { messageFrom } from './message.ts'
import { protobufCodec } from './protobuf-codec.ts'
import type { Socket } from './socket.ts'
import { settled } from './testing/steered-clock.ts'

interface Vector {
  name: string
  text?: string
  protobuf: string
  frame: Record<string, unknown> | null
  error?: string
}

const vectorsOf = (file: string): Vector[] =>
  JSON.parse(readFileSync(new URL(`../proto/push/v1/vectors/${file}`, import.meta.url), 'utf8')).filter(
    ({ protobuf }: Partial<Vector>) => protobuf !== undefined,
  )
const bytesOf = ({ protobuf }: { protobuf: string }) => Uint8Array.from(Buffer.from(protobuf, 'base64'))

describe('reads as the protocol’s vectors say', () => {
  test.each(vectorsOf('server-frames.json'))('$name', ({ protobuf, frame, error }) => {
    const parsed = protobufCodec.parse(bytesOf({ protobuf }))
    if (frame === null || !parsed.ok) {
      expect(parsed).toMatchObject({ ok: false, reason: error })
      return
    }
    const { data, data_base64: base64, ...fields } = frame
    const { data_bytes: bytes, ...rest } = { data_bytes: undefined, ...parsed.frame }
    expect(rest).toEqual(frame.type === 'message' ? fields : frame)
    if (frame.type !== 'message') return
    if (base64 !== undefined) expect(Buffer.from(bytes ?? []).toString('base64')).toBe(base64)
    else expect(bytes === undefined ? undefined : JSON.parse(Buffer.from(bytes).toString())).toEqual(data)
  })
})

test.each(vectorsOf('server-frames.json').filter(({ frame, text }) => frame?.type === 'message' && text !== undefined))(
  'a handler gets the same message from both forms: $name',
  ({ text = '', protobuf }) => {
    const json = parseServerFrame(text)
    const binary = protobufCodec.parse(bytesOf({ protobuf }))
    if (!json.ok || !binary.ok || json.frame.type !== 'message' || binary.frame.type !== 'message') expect.unreachable()
    const { bytes: jsonBytes, ...fromJson } = messageFrom(json.frame)
    const { bytes, ...fromBinary } = messageFrom(binary.frame)
    expect(fromBinary).toEqual(fromJson)
    if (jsonBytes !== undefined) expect(bytes).toEqual(jsonBytes)
  },
)

test.each(vectorsOf('client-frames.json').filter(({ frame, text }) => frame !== null && text !== undefined))(
  'writes what the protocol’s vectors say, byte for byte: $name',
  ({ protobuf, frame }) => {
    expect(Buffer.from(protobufCodec.encode(frame as unknown as ClientFrame)).toString('base64')).toBe(protobuf)
  },
)

test('whatever comes, it is a frame or none: no form throws', () => {
  const known = vectorsOf('server-frames.json').map(bytesOf)
  const mutated = fc
    .tuple(fc.constantFrom(...known), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }), fc.nat(3))
    .map(([bytes, changes, cut]) => {
      const copy = bytes.slice(0, bytes.length - cut)
      for (const [at, value] of changes) if (copy.length > 0) copy[at % copy.length] = value
      return copy
    })
  fc.assert(
    fc.property(fc.oneof(mutated, fc.uint8Array({ maxLength: 256 })), (bytes) => {
      protobufCodec.parse(bytes)
      jsonCodec.parse(Buffer.from(bytes).toString('utf8'))
    }),
    { seed: 20_262, numRuns: 2_000 },
  )
  for (const odd of [undefined, null, 7, 'text', {}, []]) expect(protobufCodec.parse(odd)).toMatchObject({ ok: false })
})

test('a device with protocol protobuf offers that form alone, and speaks it', async () => {
  const listeners = new Map<string, (event: never) => void>()
  const sent: unknown[] = []
  let offered: string[] = []
  const socket: Socket = {
    binaryType: 'blob',
    send: (data) => sent.push(data),
    close: () => queueMicrotask(() => listeners.get('close')?.({ code: 1000, reason: '' } as never)),
    addEventListener: (type: string, listener: (event: never) => void) => void listeners.set(type, listener),
  }
  const handled: unknown[] = []
  const device = connectDevice({
    url: 'ws://127.0.0.1:7480/v1/connect',
    token: 'dev:tv',
    protocol: 'protobuf',
    onMessage: (message) => void handled.push(message.data),
    openSocket: (_url, protocols) => {
      offered = protocols
      return socket
    },
  })
  await settled()
  expect(offered).toEqual(['push.v1.protobuf', expect.stringMatching(/^push\.bearer\./)])
  expect(socket.binaryType).toBe('arraybuffer')
  const vector = (name: string) => {
    const found = vectorsOf('server-frames.json').find((one) => one.name === name)
    return bytesOf(found ?? { protobuf: '' }).buffer
  }
  const say = async (data: unknown) => {
    listeners.get('message')?.({ data } as never)
    await settled()
  }
  await say(vector('welcome'))
  expect(device.state).toBe('open')
  await say(vector('message with an object as payload'))
  expect(handled).toHaveLength(1)
  expect(sent.map((data) => Buffer.from(data as Uint8Array).toString('hex'))).toEqual([
    Buffer.from(protobufCodec.encode({ type: 'ack', ids: ['01890a5d-ac96-774b-bcce-b302099a8057'] })).toString('hex'),
  ])
  await device.close()
})
