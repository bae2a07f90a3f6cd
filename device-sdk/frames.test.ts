import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { type ClientFrame, encodeFrame, parseServerFrame } from './frames.ts'

interface Vector {
  name: string
  text: string
  frame: { type: string } | null
  error?: string
}

const vectorsOf = (file: string): Vector[] =>
  JSON.parse(readFileSync(new URL(`../proto/push/v1/vectors/${file}`, import.meta.url), 'utf8')).filter(
    // The others have a Protobuf form only.
    ({ text }: Partial<Vector>) => text !== undefined,
  )

test.each(vectorsOf('server-frames.json'))('reads as the protocol’s vectors say: $name', ({ text, frame, error }) => {
  const parsed = parseServerFrame(text)
  if (frame === null) expect(parsed).toMatchObject({ ok: false, reason: error })
  else expect(parsed).toEqual({ ok: true, frame })
})

const sendable = new Set(['ack', 'nack', 'ping', 'pong', 'credential'])

test.each(vectorsOf('client-frames.json').filter(({ frame }) => frame !== null && sendable.has(frame.type)))(
  'writes what the protocol’s vectors say: $name',
  ({ frame }) => {
    expect(JSON.parse(encodeFrame(frame as ClientFrame))).toEqual(frame)
  },
)

test('says which field is wrong', () => {
  const message = {
    type: 'message',
    id: 'm',
    class: 'USER',
    priority: 'NORMAL',
    accept_time: 1,
    expire_time: 2,
    confirm: 'WRITTEN',
  }
  const problem = (frame: object) => {
    const parsed = parseServerFrame(JSON.stringify(frame))
    return parsed.ok ? 'none' : parsed.message
  }
  expect(problem(message)).toBe('message: target is missing')
  expect(problem({ ...message, target: 'device/tv', accept_time: '1' })).toBe('message: accept_time must be a whole number')
  expect(problem({ ...message, target: 'device/tv', data_base64: 'a' })).toBe('message: data_base64 must be base64 with padding')
  expect(problem({ ...message, target: 'device/tv', signature: { key_id: 'k' } })).toBe('message: signature nonce is missing')
  expect(problem({ type: 'goaway', reason: 'drain', reconnect_after_ms: -1 })).toBe(
    'goaway: reconnect_after_ms must be a whole number of at least 0',
  )
  expect(problem([1])).toBe('not a JSON object')
  expect(problem({ type: 'x'.repeat(500) })).toBe(`unknown type ${'x'.repeat(64)}`)
})
