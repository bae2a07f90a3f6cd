import fc from 'fast-check'
import { describe, expect } from 'vitest'
import { CloseReason, DeliverRequest, EdgeServiceDefinition } from '../gen/push/internal/v1/edge.ts'
import { systemClock } from '../service-kit/clock.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { fuzzed, fuzzTimeoutMs, mutated, wireMessage } from '../service-kit/testing/fuzz.ts'
import { fairEnds, rawMethods } from '../service-kit/testing/raw-calls.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { type EdgeFixture, test } from './testing/edge-fixture.ts'
import { clientFrameBytes } from './testing/frame-forms.ts'
import { handshakeText, rawClient } from './testing/raw-client.ts'
import { closePayload, opcodes, wireFrame } from './testing/wire-frames.ts'

/** A device that has nothing to do with it, and must not notice. */
async function bystander(edge: EdgeFixture) {
  const device = await edge.open('dev:bystander')
  return async () => {
    device.send({ type: 'ping' })
    await device.next('pong')
  }
}

/** RFC 6455, 7.4: what may be on the wire. A client's own code is given back. */
const isWireCode = (code: number) =>
  (code >= 3000 && code <= 4999) || [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014].includes(code)

/** Nothing was told as a defect. */
const expectNoDefect = (edge: EdgeFixture) => expect(edge.log.entries.filter(({ level }) => level === 'error')).toEqual([])

const frames = [
  { type: 'ack', ids: ['m1', 'm2'] },
  { type: 'nack', id: 'm3', reason: 'no' },
  { type: 'result', id: 'm4', status: 'ok', data: { n: 1 }, message: 'done' },
  { type: 'ping', data: 'x' },
]

describe.each([
  ['push.v1.json', opcodes.text, frames.map((frame) => Buffer.from(JSON.stringify(frame)))],
  ['push.v1.protobuf', opcodes.binary, frames.map((frame) => Buffer.from(clientFrameBytes(frame)))],
] as const)('%s', (protocol, opcode, payloads) => {
  const whole = payloads.map((payload) => wireFrame(opcode, payload))
  const controls = [wireFrame(opcodes.ping, 'x'), wireFrame(opcodes.pong), wireFrame(opcodes.close, closePayload(1000, 'done'))]
  const parts = payloads.flatMap((payload) => [
    wireFrame(opcode, payload.subarray(0, 3), { fin: false }),
    wireFrame(opcodes.continuation, payload.subarray(3)),
  ])
  const anyFrame = fc
    .record({
      opcode: fc.oneof(fc.constantFrom(...Object.values(opcodes)), fc.nat(15)),
      payload: fc.oneof(fc.constantFrom(...payloads), mutated(...payloads), wireMessage(), fc.uint8Array({ maxLength: 300 })),
      fin: fc.boolean(),
      rsv: fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(7) }),
      masked: fc.oneof({ weight: 8, arbitrary: fc.constant(true) }, { weight: 1, arbitrary: fc.constant(false) }),
      claimedLength: fc.oneof(
        { weight: 8, arbitrary: fc.constant(undefined) },
        { weight: 1, arbitrary: fc.bigInt(0n, 2n ** 64n - 1n) },
      ),
    })
    .map(({ opcode: code, payload, fin, rsv, masked, claimedLength }) =>
      wireFrame(code, Buffer.from(payload), {
        fin,
        rsv,
        ...(masked ? {} : { mask: undefined }),
        ...(claimedLength === undefined ? {} : { claimedLength, lengthBits: 64 }),
      }),
    )
  const stream = fc.oneof(
    fc
      .array(fc.oneof(fc.constantFrom(...whole, ...controls, ...parts), anyFrame), { minLength: 1, maxLength: 6 })
      .map((list) => Buffer.concat(list)),
    mutated(...whole, Buffer.concat([...whole, ...controls]), Buffer.concat(parts)),
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  )

  test('whatever a device sends on its socket: it ends by a code or goes on, its neighbour notices nothing, nothing stays', {
    timeout: fuzzTimeoutMs,
  }, async ({ edge }) => {
    const { deviceAddress } = await edge.start()
    const stillThere = await bystander(edge)
    await fc.assert(
      fc.asyncProperty(stream, async (bytes) => {
        const client = rawClient(deviceAddress)
        client.write(handshakeText({ 'Sec-WebSocket-Protocol': protocol }))
        await expect.poll(() => client.frames().length, { interval: 2 }).toBe(1)
        client.write(bytes)
        await edge.pass(1)
        for (const frame of client.frames()) {
          expect(frame).toMatchObject({ masked: false, rsv: 0, fin: true })
          if (frame.opcode !== opcodes.close || frame.payload.length === 0) continue
          expect(isWireCode(frame.payload.readUInt16BE(0))).toBe(true)
        }
        client.end()
        await expect.poll(() => edge.plane.rows.map(({ deviceId }) => deviceId), { interval: 2 }).toEqual(['bystander'])
        await stillThere()
        expectNoDefect(edge)
      }),
      fuzzed(60),
    )
    expect(await edge.metric('push_edge_sessions', { state: 'open' })).toBe(1)
    expect(await edge.metric('push_edge_outbox_bytes')).toBe(0)
  })
})

test('whatever comes on a stream of a router, it is answered or refused, and devices notice nothing', {
  timeout: fuzzTimeoutMs,
}, async ({ edge }) => {
  const { address, edgeId } = await edge.start()
  const stillThere = await bystander(edge)
  const { sessionId } = await edge.open('dev:tv-1')
  const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  const requests = [
    { deliveries: [deliveryOf({ data: { n: 1 } }, { sessionId }), deliveryOf({}, { sessionId: 'absent' })] },
    { inboxReady: [{ pokeId: 1, deviceId: 'tv-1', sessionId }] },
    { closeSessions: [{ closeId: 1, deviceId: 'tv-1', sessionId, reason: CloseReason.SUPERSEDED, replacerEpoch: 1 }] },
  ].map((request) => DeliverRequest.encode(DeliverRequest.fromPartial(request)).finish())
  const bytes = fc.oneof(mutated(...requests), wireMessage(), fc.uint8Array({ maxLength: 200 }))
  try {
    for (const method of rawMethods(connection, EdgeServiceDefinition, { 'edge-id': edgeId })) {
      const messages = fc.array(bytes, { minLength: 1, maxLength: method.path.endsWith('/Deliver') ? 4 : 1 })
      await fc.assert(
        fc.asyncProperty(messages, async (list) => {
          expect(fairEnds).toContain(await method.send(list))
          await stillThere()
          expectNoDefect(edge)
        }),
        fuzzed(60),
      )
    }
  } finally {
    connection.close()
  }
})
