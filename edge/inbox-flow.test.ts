import { expect } from 'vitest'
import { InboxReadyResult, OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { FlushResult, ReportResult } from '../gen/push/internal/v1/uplink.ts'
import { PushError } from '../service-kit/errors.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { type TestRouter, test } from './testing/edge-fixture.ts'
import { flushResponse } from './testing/fake-plane.ts'

const { WRITTEN, ACKNOWLEDGED, RESULT } = OutcomeKind
const { ACCEPTED, NOT_CONNECTED } = InboxReadyResult
const { READING, EMPTY } = FlushResult

const pokesOf = (router: TestRouter) => router.answers.flatMap(({ inboxReadyAnswers }) => inboxReadyAnswers)
const absent = 'absent'.padEnd(22, '-')

test('a poke is answered when the router says that the inbox has been read, while the flush goes on', async ({ edge }) => {
  const running = await edge.start()
  const { sessionId } = await edge.open('dev:tv-1')
  const [read, end] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  edge.plane.onFlush = async function* () {
    await read.promise
    yield flushResponse(READING)
    await end.promise
    yield flushResponse(EMPTY, { settledCount: 1 })
  }
  const router = edge.router()
  router.send({ inboxReady: [{ pokeId: 7, deviceId: 'tv-1', sessionId }] })
  await expect.poll(() => edge.plane.flushes).toHaveLength(1)
  expect(edge.plane.flushes).toEqual([{ edgeId: running.edgeId, deviceId: 'tv-1', sessionId, edgeAddress: running.address }])
  expect(pokesOf(router)).toEqual([])
  // It comes after the call was made: this flush may have missed what it announces.
  router.send({ inboxReady: [{ pokeId: 8, deviceId: 'tv-1', sessionId }] })
  await edge.pass(100)
  read.resolve()
  await expect.poll(() => pokesOf(router)).toEqual([{ pokeId: 7, result: ACCEPTED }])
  expect(await edge.metric('push_edge_flushes_active')).toBe(1)
  end.resolve()
  await expect.poll(() => pokesOf(router).at(-1)).toEqual({ pokeId: 8, result: ACCEPTED })
  expect(edge.plane.flushes).toHaveLength(2)
  await expect.poll(() => edge.metric('push_edge_flushes_active')).toBe(0)
})

test('a poke for a session that is not here pokes no other, and its row is removed', async ({ edge }) => {
  await edge.start()
  await edge.open('dev:tv-1')
  const router = edge.router()
  router.send({
    inboxReady: [
      { pokeId: 1, deviceId: 'tv-1', sessionId: absent },
      { pokeId: 2, deviceId: 'tv 1', sessionId: absent },
    ],
  })
  await expect.poll(() => pokesOf(router)).toHaveLength(2)
  expect(pokesOf(router).map(({ result }) => result)).toEqual([NOT_CONNECTED, NOT_CONNECTED])
  await expect.poll(() => edge.plane.unregistered).toEqual([{ deviceId: 'tv-1', sessionId: absent, epoch: 0 }])
  expect(edge.plane.flushes).toEqual([])
})

test('a poke for a session that is still registering is remembered, and answered when its inbox has been read', async ({
  edge,
}) => {
  await edge.start()
  const registered = Promise.withResolvers<void>()
  edge.plane.onRegister = async (_session, insert) => {
    await registered.promise
    return insert()
  }
  const device = edge.connect('dev:tv-1')
  await expect.poll(() => edge.plane.registers).toHaveLength(1)
  const sessionId = edge.plane.registers[0]?.sessionId ?? ''
  const router = edge.router()
  router.send({ inboxReady: [{ pokeId: 1, deviceId: 'tv-1', sessionId }] })
  await edge.pass(100)
  expect(pokesOf(router)).toEqual([])
  expect(edge.plane.flushes).toEqual([])
  registered.resolve()
  await device.next('welcome')
  await expect.poll(() => pokesOf(router)).toEqual([{ pokeId: 1, result: ACCEPTED }])
  expect(edge.plane.flushes).toMatchObject([{ sessionId }])
})

test('a poke of all sessions: each flushes, also one that is still registering', async ({ edge }) => {
  await edge.start()
  const first = await edge.open('dev:tv-1')
  await edge.open('dev:tv-2')
  const registered = Promise.withResolvers<void>()
  edge.plane.onRegister = async (_session, insert) => {
    await registered.promise
    return insert()
  }
  const late = edge.connect('dev:tv-3')
  await expect.poll(() => edge.plane.registers).toHaveLength(3)
  const router = edge.router()
  router.send({ inboxReadyAll: [{ pokeId: 5 }] })
  await expect.poll(() => pokesOf(router)).toEqual([{ pokeId: 5, result: ACCEPTED }])
  await expect.poll(() => edge.plane.flushes.map(({ deviceId }) => deviceId).sort()).toEqual(['tv-1', 'tv-2'])
  expect(edge.plane.flushes).toContainEqual(expect.objectContaining({ sessionId: first.sessionId }))
  registered.resolve()
  await late.next('welcome')
  await expect.poll(() => edge.plane.flushes.map(({ deviceId }) => deviceId).sort()).toEqual(['tv-1', 'tv-2', 'tv-3'])
})

test('a session that registers with the hint flushes, and repeats it when the router fails', async ({ edge }) => {
  await edge.start()
  edge.plane.inboxUntil = 1
  let attempts = 0
  edge.plane.onFlush = async function* () {
    if (++attempts === 1) throw new PushError('REGISTRY_UNAVAILABLE', 'away')
    yield flushResponse(READING)
    if (attempts === 2) throw new Error('broken')
    yield flushResponse(EMPTY)
  }
  await edge.open('dev:tv-1')
  await expect.poll(() => attempts).toBe(1)
  await edge.pass(30_000)
  await expect.poll(() => attempts).toBeGreaterThanOrEqual(2)
  await edge.pass(30_000)
  await expect.poll(() => attempts).toBe(3)
  expect(await edge.metric('push_edge_flushes_total', { result: 'failed' })).toBe(2)
  expect(await edge.metric('push_edge_flushes_total', { result: 'empty' })).toBe(1)
})

test('a poke that waits is answered NOT_CONNECTED when its device goes', async ({ edge }) => {
  await edge.start()
  const answered = Promise.withResolvers<void>()
  edge.plane.onFlush = async function* () {
    await answered.promise
    yield flushResponse(READING)
    yield flushResponse(EMPTY)
  }
  const device = await edge.open('dev:tv-1')
  const router = edge.router()
  router.send({ inboxReady: [{ pokeId: 1, deviceId: 'tv-1', sessionId: device.sessionId }] })
  await expect.poll(() => edge.plane.flushes).toHaveLength(1)
  device.webSocket.terminate()
  await expect.poll(() => pokesOf(router)).toEqual([{ pokeId: 1, result: NOT_CONNECTED }])
  answered.resolve()
})

test('a result goes back on the stream; one that comes by the next session goes up', async ({ edge }) => {
  await edge.start()
  const device = await edge.open('dev:tv-1')
  const router = edge.router()
  const [first, second] = [1, 2].map(() => deliveryOf({ confirm: 'RESULT' }, { sessionId: device.sessionId }))
  if (first === undefined || second === undefined) throw new Error('two were made')
  router.send({ deliveries: [first, second] })
  await device.next('message')
  await device.next('message')
  device.send({ type: 'ack', ids: [first.messageId, second.messageId] })
  device.send({ type: 'result', id: first.messageId, status: 'ok', data: { files: ['a'] } })
  expect(await router.kinds(first.deliveryId, 3)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
  expect(router.outcomes.at(-1)?.result).toEqual({ ok: true, data: Buffer.from('{"files":["a"]}'), message: '' })

  device.webSocket.close()
  const next = await edge.open('dev:tv-1')
  let answers = 0
  edge.plane.onLateAnswer = async () => (++answers === 1 ? ReportResult.RETRY : ReportResult.DONE)
  next.send({ type: 'result', id: second.messageId, status: 'failed', message: 'disk full' })
  await expect.poll(() => edge.plane.lateAnswers).toHaveLength(1)
  await edge.pass(1_000)
  await expect.poll(() => edge.plane.lateAnswers).toHaveLength(2)
  expect(edge.plane.lateAnswers[1]).toMatchObject({
    deviceId: 'tv-1',
    messageId: second.messageId,
    kind: RESULT,
    result: { ok: false, message: 'disk full' },
  })
  await edge.pass(15_000)
  expect(edge.plane.lateAnswers).toHaveLength(2)
})

test('a delivery of what the device has acknowledged on its older session joins there', async ({ edge }) => {
  await edge.start()
  edge.plane.onRegister = async (_session, insert) => {
    const result = insert()
    return result?.$case === 'registered' ? { ...result, value: { ...result.value, replacedSessions: [] } } : result
  }
  const older = await edge.open('dev:tv-1')
  const younger = await edge.open('dev:tv-1')
  const router = edge.router()
  const delivery = deliveryOf({ confirm: 'RESULT' }, { sessionId: older.sessionId })
  router.send({ deliveries: [delivery] })
  await older.next('message')
  older.send({ type: 'ack', ids: [delivery.messageId] })
  await router.kinds(delivery.deliveryId, 2)
  const repeat = { ...delivery, deliveryId: delivery.deliveryId + 1_000, sessionId: younger.sessionId }
  router.send({ deliveries: [repeat] })
  expect(await router.kinds(repeat.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
  expect(younger.frames.filter(({ type }) => type === 'message')).toEqual([])
})

test('an edge that learns that it lapsed looks its sessions up, and registers again those without a row', async ({ edge }) => {
  await edge.start()
  const { sessionId } = await edge.open('dev:tv-1')
  const [row] = edge.plane.rows
  edge.plane.rows.length = 0
  let lapsed = true
  edge.plane.onRenew = async () => {
    const answer = { lapsed }
    lapsed = false
    return answer
  }
  await edge.pass(10_500)
  await expect.poll(() => edge.plane.lookups).toHaveLength(1)
  await expect.poll(() => edge.plane.rows).toMatchObject([{ deviceId: 'tv-1', sessionId }])
  expect(edge.plane.registers.at(-1)).toMatchObject({ sessionId, lastEpoch: row?.epoch })
  await edge.pass(60_000)
  expect(edge.plane.lookups).toHaveLength(1)
})
