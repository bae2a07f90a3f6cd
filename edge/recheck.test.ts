import { expect, test } from 'vitest'
import type { DeviceSessions, LookupRequest, SessionRow } from '../gen/push/internal/v1/registry.ts'
import { EdgeLeaseState } from '../gen/push/internal/v1/registry.ts'
import { PushError } from '../service-kit/errors.ts'
import { seededRandom } from '../service-kit/random.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { closeKinds } from './close-codes.ts'
import { createRecheck } from './recheck.ts'
import type { Candidate, RegistrationResult } from './registration.ts'
import { fakeEdge } from './testing/fake-session.ts'

const { LIVE, SUSPECT, LAPSED } = EdgeLeaseState

const leaseTtlMs = 30_000

function setup(ratePerSecond = 1_000) {
  const edge = fakeEdge({ pingIntervalMs: 10 * 3_600_000, registerTimeoutMs: 60_000 })
  const log = recordingLog()
  const lookups: { at: number; deviceIds: string[] }[] = []
  const candidates: Candidate[] = []
  const state = {
    rows: new Map<string, { row: SessionRow; edgeState: EdgeLeaseState }[]>(),
    failing: new Set<string>(),
    inboxUntil: 0,
    away: false,
    more: false,
    register: async (_candidate: Candidate): Promise<RegistrationResult> => ({
      type: 'registered',
      epoch: 500,
      attempts: 1,
      replaced: [],
    }),
  }
  const lookUp = (deviceId: string): DeviceSessions => ({
    deviceId,
    routes: state.rows.get(deviceId) ?? [],
    more: state.more,
    inboxUntil: state.inboxUntil,
    error: state.failing.has(deviceId) ? { reason: 'REGISTRY_UNAVAILABLE', message: '' } : undefined,
  })
  const recheck = createRecheck({
    registry: {
      async lookup(request) {
        const { deviceIds = [], allRows } = request as LookupRequest
        expect(allRows).toBe(true)
        lookups.push({ at: edge.clock.monotonic(), deviceIds })
        if (state.away) throw new PushError('REGISTRY_UNAVAILABLE', 'away')
        return { devices: deviceIds.map(lookUp), registryTime: 0 }
      },
    },
    registration: {
      register(candidate) {
        candidates.push(candidate)
        return state.register(candidate)
      },
    },
    edgeId: 'edge-1',
    sessions: edge.host.sessions,
    unregister: edge.host.unregister,
    ratePerSecond,
    leaseTtlMs,
    registerTimeoutMs: 5_000,
    clock: edge.clock,
    random: seededRandom(1),
    log,
    metrics: edge.host.metrics,
  })
  const row = (deviceId: string, sessionId: string, epoch: number, edgeId = 'edge-1', edgeState: EdgeLeaseState = LIVE) => {
    const value = {
      deviceId,
      sessionId,
      epoch,
      edgeId,
      edgeAddress: 'x:1',
      accountId: '',
      protocol: 'push.v1.json',
      connectedTime: 0,
    }
    state.rows.set(deviceId, [{ row: value, edgeState }, ...(state.rows.get(deviceId) ?? [])])
  }
  /** An open session with its row. */
  const open = (deviceId: string, { hasRow = true } = {}) => {
    const opened = edge.open({ deviceId, sessionId: `of-${deviceId}` })
    if (hasRow) row(deviceId, `of-${deviceId}`, opened.session.order.epoch)
    return opened
  }
  return { ...edge, log, lookups, candidates, state, recheck, row, open }
}

test('sessions whose row is there and newest are left alone', async () => {
  const { recheck, open, clock, lookups, candidates, unregistered, flushers } = setup()
  const { transport } = open('a')
  recheck.start()
  await clock.advance(5_000)
  expect(lookups).toEqual([{ at: 0, deviceIds: ['a'] }])
  expect([candidates, unregistered, flushers, transport.closedWith]).toEqual([[], [], [], undefined])
  expect(recheck.size).toBe(0)
  await recheck.close()
})

test('a newer session on a live edge: this one is closed as superseded', async () => {
  const { recheck, open, row, clock } = setup()
  const { transport } = open('a')
  row('a', 'other', 9_999, 'edge-2', LIVE)
  recheck.start()
  await clock.advance(0)
  expect(transport.closedWith).toBe(closeKinds.superseded)
  await recheck.close()
})

test.each([SUSPECT, LAPSED])(
  'a newer session on an edge in state %i: looked at again after a lease period',
  async (edgeState) => {
    const { recheck, open, row, clock, lookups, state } = setup()
    const { transport } = open('a')
    row('a', 'other', 9_999, 'edge-2', edgeState)
    recheck.start()
    await clock.advance(leaseTtlMs - 100)
    expect(lookups).toHaveLength(1)
    expect(transport.closedWith).toBeUndefined()
    for (const route of state.rows.get('a') ?? []) route.edgeState = LIVE
    await clock.advance(200)
    expect(lookups).toHaveLength(2)
    expect(transport.closedWith).toBe(closeKinds.superseded)
    await recheck.close()
  },
)

test('an older session elsewhere is no reason for anything', async () => {
  const { recheck, open, row, clock, candidates, state } = setup()
  row('a', 'older', 1, 'edge-2', LIVE)
  const { transport } = open('a')
  recheck.start()
  await clock.advance(0)
  expect(transport.closedWith).toBeUndefined()
  expect(candidates).toEqual([])
  expect(state.rows.get('a')).toHaveLength(2)
  await recheck.close()
})

test('a row of this edge without a session here is removed by its key, and takes nobody’s place', async () => {
  const { recheck, open, row, clock, unregistered } = setup()
  const { transport } = open('a')
  row('a', 'ghost', 9_999, 'edge-1')
  recheck.start()
  await clock.advance(0)
  expect(unregistered).toEqual([{ deviceId: 'a', sessionId: 'ghost', epoch: 9_999 }])
  expect(transport.closedWith).toBeUndefined()
  await recheck.close()
})

test('the hint flushes', async () => {
  const { recheck, open, clock, flushers, state } = setup()
  open('a')
  state.inboxUntil = 5
  recheck.start()
  await clock.advance(0)
  expect(flushers).toMatchObject([{ sessionId: 'of-a' }])
  await recheck.close()
})

test('a session whose row has gone registers again with its last epoch', async () => {
  const { recheck, open, clock, candidates } = setup()
  const { session, transport } = open('a', { hasRow: false })
  const { epoch } = session.order
  recheck.start()
  await clock.advance(0)
  expect(candidates).toMatchObject([{ deviceId: 'a', sessionId: 'of-a', lastEpoch: epoch, closed: false }])
  expect(session.order.epoch).toBe(500)
  expect(transport.ofType('welcome')).toHaveLength(1)
  await recheck.close()
})

test('when that finds a newer session this one is closed; when it fails it is tried again after a lease period', async () => {
  const { recheck, open, clock, state, candidates } = setup()
  const { transport } = open('a', { hasRow: false })
  state.register = async () => ({ type: 'registration failed', attempts: 1 })
  recheck.start()
  await clock.advance(leaseTtlMs - 100)
  expect(candidates).toHaveLength(1)
  expect(transport.closedWith).toBeUndefined()
  state.register = async () => ({ type: 'superseded', attempts: 1 })
  await clock.advance(200)
  expect(candidates).toHaveLength(2)
  expect(transport.closedWith).toBe(closeKinds.superseded)
  await recheck.close()
})

test('with more rows than were shown nothing is concluded from one that is missing', async () => {
  const { recheck, open, clock, state, candidates, lookups } = setup()
  open('a', { hasRow: false })
  state.more = true
  recheck.start()
  await clock.advance(leaseTtlMs + 100)
  expect(candidates).toEqual([])
  expect(lookups).toHaveLength(2)
  await recheck.close()
})

test('goes by the rate', async () => {
  const { recheck, open, clock, lookups } = setup(100)
  for (let index = 0; index < 250; index++) open(`d${index}`)
  recheck.start()
  recheck.start()
  await clock.advance(900)
  expect(lookups.map(({ deviceIds }) => deviceIds.length)).toEqual([100])
  await clock.advance(1_200)
  expect(lookups.map(({ deviceIds }) => deviceIds.length)).toEqual([100, 100, 50])
  expect(new Set(lookups.flatMap(({ deviceIds }) => deviceIds)).size).toBe(250)
  await recheck.close()
})

test('a registry that is away, or that fails for one device, is asked again', async () => {
  const { recheck, open, clock, lookups, state, candidates } = setup()
  open('a', { hasRow: false })
  open('b')
  state.away = true
  recheck.start()
  await clock.advance(400)
  state.away = false
  state.failing.add('a')
  await clock.advance(1_100)
  expect(candidates).toEqual([])
  state.failing.clear()
  await clock.advance(2_000)
  expect(candidates).toMatchObject([{ deviceId: 'a' }])
  expect(lookups.length).toBeGreaterThanOrEqual(3)
  expect(recheck.size).toBe(0)
  await recheck.close()
})

test('sessions that are registering, or open only while the answer is on its way, are not judged', async () => {
  const { recheck, open, install, clock, candidates, lookups } = setup()
  open('a')
  install({ deviceId: 'b' })
  recheck.start()
  // The look-up is made after this turn of the event loop, its answer comes in a later one.
  await Promise.resolve()
  await Promise.resolve()
  expect(lookups).toEqual([{ at: 0, deviceIds: ['a'] }])
  install({ deviceId: 'a', sessionId: 'younger' }).session.handle({ type: 'registered', epoch: 800, attempts: 1, replaced: [] })
  await clock.advance(1_000)
  expect(candidates).toEqual([])
  await recheck.close()
})

test('stopping leaves no timer', async () => {
  const { recheck, open, row, clock } = setup()
  open('a')
  row('a', 'other', 9_999, 'edge-2', SUSPECT)
  recheck.start()
  await clock.advance(10)
  const before = clock.pendingTimers
  await recheck.close()
  expect(clock.pendingTimers).toBe(before - 1)
})
