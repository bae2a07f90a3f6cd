import { Metadata } from 'nice-grpc-common'
import { describe, expect, onTestFinished } from 'vitest'
import { type DeepPartial, type DrainRequest, EdgeServiceDefinition } from '../gen/push/internal/v1/edge.ts'
import { EdgeDrainState } from '../gen/push/v1/operations.ts'
import { systemClock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { test } from './testing/edge-fixture.ts'

describe('an operator drains the edge', () => {
  /** What a router does when an operator asks. */
  const caller = ({ address, edgeId }: { address: string; edgeId: string }) => {
    const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
    onTestFinished(() => connection.close())
    const client = connection.client(EdgeServiceDefinition)
    return async (request: DeepPartial<DrainRequest>, meant = edgeId) =>
      (await client.drain(request, { metadata: Metadata({ 'edge-id': meant }) })).drain
  }
  const env = { EDGE_DRAIN_NOTICE_MS: '1000', EDGE_DRAIN_GRACE_MS: '60000' }

  test('it is as SIGTERM, except that the process stays and the drain can be taken back', async ({ edge }) => {
    const started = await edge.start(env)
    const drain = caller(started)
    const devices = await Promise.all(Array.from({ length: 4 }, (_, index) => edge.open(`dev:tv-${index}`)))
    expect(await drain({})).toMatchObject({ edgeId: started.edgeId, state: EdgeDrainState.SERVING, connectionCount: 4 })
    expect(await drain({ start: true, ratePerSecond: 1 })).toMatchObject({ state: EdgeDrainState.NOT_READY })
    expect((await fetch(`http://${started.deviceAddress}/readyz`)).status).toBe(503)
    await edge.pass(2_000)
    const told = () => devices.filter(({ frames }) => frames.some(({ type }) => type === 'goaway')).length
    expect(await drain({})).toMatchObject({
      state: EdgeDrainState.EVICTING,
      startTime: expect.anything(),
      startConnectionCount: 4,
      connectionCount: 4,
      toldCount: told(),
      ratePerSecond: 1,
      stopping: false,
    })
    expect(told()).toBeLessThan(4)
    // Faster, from now on.
    expect(await drain({ start: true, duration: { seconds: 0, nanos: 0 } })).toMatchObject({ ratePerSecond: 100_000 })
    // After the slots that were given already.
    await edge.pass(1_200)
    await expect.poll(told).toBe(4)
    expect(await drain({})).toMatchObject({ state: EdgeDrainState.FORCING, toldCount: 4 })

    expect(await drain({ abort: true })).toMatchObject({
      state: EdgeDrainState.SERVING,
      connectionCount: 4,
      startTime: undefined,
    })
    expect((await fetch(`http://${started.deviceAddress}/readyz`)).status).toBe(200)
    await expect.poll(() => edge.plane.renewals.at(-1)?.draining).toBe(false)
    await edge.open('dev:tv-new')
    await edge.pass(90_000)
    expect(edge.plane.rows).toHaveLength(5)
    expect(await drain({ abort: true })).toMatchObject({ state: EdgeDrainState.SERVING })
  })

  test('once everybody has gone it stays so, and says that nothing can be taken back', async ({ edge }) => {
    const started = await edge.start(env)
    const drain = caller(started)
    const device = await edge.open('dev:tv-1')
    await drain({ start: true, ratePerSecond: 10 })
    await edge.pass(1_200)
    await device.next('goaway')
    device.webSocket.close()
    await expect.poll(async () => (await drain({}))?.state).toBe(EdgeDrainState.GONE)
    await expect.poll(() => edge.plane.rows).toEqual([])
    const failure = await drain({ abort: true }).catch((error: unknown) => error)
    expect(callErrorOf(failure)).toMatchObject({ reason: 'DRAIN_FINAL' })
    expect((await fetch(`http://${started.deviceAddress}/healthz`)).status).toBe(200)
    expect((await fetch(`http://${started.deviceAddress}/readyz`)).status).toBe(503)
  })

  test.for<[string, DeepPartial<DrainRequest>, string | undefined, string]>([
    ['another edge', { start: true }, 'edge-other', 'EDGE_RESTARTED'],
    ['start and abort', { start: true, abort: true }, undefined, 'INVALID_REQUEST'],
    ['two paces', { start: true, ratePerSecond: 1, duration: { seconds: 1, nanos: 0 } }, undefined, 'INVALID_REQUEST'],
    ['a rate below the least', { start: true, ratePerSecond: 0.01 }, undefined, 'INVALID_REQUEST'],
    ['a rate that is no number', { start: true, ratePerSecond: Number.NaN }, undefined, 'INVALID_REQUEST'],
    ['a negative time', { start: true, duration: { seconds: -1, nanos: 0 } }, undefined, 'INVALID_REQUEST'],
    ['a time above a day', { start: true, duration: { seconds: 86_401, nanos: 0 } }, undefined, 'INVALID_REQUEST'],
    ['a malformed time', { start: true, duration: { seconds: 1, nanos: -1 } }, undefined, 'INVALID_REQUEST'],
    ['a pace without start', { ratePerSecond: 1 }, undefined, 'INVALID_REQUEST'],
  ])('%s is refused and drains nothing', async ([, request, meant, reason], { edge }) => {
    const drain = caller(await edge.start(env))
    const failure = await drain(request, meant).catch((error: unknown) => error)
    expect(callErrorOf(failure)).toMatchObject({ reason })
    expect(await drain({})).toMatchObject({ state: EdgeDrainState.SERVING })
  })
})
