import { expect, test } from 'vitest'
import { silentLog } from '../service-kit/log.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { closeKinds } from './close-codes.ts'
import { createDrain } from './drain.ts'
import { fakeEdge } from './testing/fake-session.ts'

/** An edge with so many open sessions, and a drain that asks all at once after 1 s unless told otherwise. */
function drainedEdge(count: number) {
  const edge = fakeEdge({ pingIntervalMs: 3_600_000 })
  const { clock, host } = edge
  const opened = Array.from({ length: count }, (_, index) => edge.open({ deviceId: `tv-${index}` }))
  const reported: boolean[] = []
  const taken: boolean[] = []
  const drain = createDrain({
    sessions: host.sessions,
    bounds: { noticeMs: 1_000, overMs: 0, graceMs: 2_000, closingMs: 6_000 },
    report: (draining) => reported.push(draining),
    takeDevices: (now) => taken.push(now),
    clock,
    log: silentLog,
    metrics: host.metrics,
  })
  host.ended = (session) => {
    host.sessions.remove(session)
    drain.ended(session)
  }
  /** Lets time pass while the turns in which sessions are asked get theirs. */
  const pass = async (ms: number) => {
    for (let left = ms; left > 0; left -= 100) {
      await clock.advance(100)
      await new Promise((resolve) => setImmediate(resolve))
    }
  }
  return { ...edge, opened, drain, reported, taken, pass }
}

test('each session is asked once, however many there are', async () => {
  const { drain, opened, pass } = drainedEdge(1_000)
  drain.start()
  await pass(3_000)
  expect(opened.map(({ transport }) => transport.ofType('goaway').length)).toEqual(opened.map(() => 1))
  expect(drain.progress).toMatchObject({ state: 'forcing', sessionCount: 1_000, toldCount: 1_000, startCount: 1_000 })
})

test('its state, who is left and the pace can be seen', async () => {
  const { drain, opened, pass, metrics } = drainedEdge(10)
  drain.start({ ratePerSecond: 5 })
  await pass(1_500)
  opened[0]?.session.socketClosed()
  expect(drain.progress).toMatchObject({ state: 'evicting', startCount: 10, sessionCount: 9, ratePerSecond: 5, stopping: false })
  expect(drain.progress.toldCount).toBeGreaterThan(2)
  expect(await metricValue(metrics, 'push_edge_drain_state', { state: 'evicting' })).toBe(1)
  expect(await metricValue(metrics, 'push_edge_drain_state', { state: 'serving' })).toBe(0)
  expect(await metricValue(metrics, 'push_edge_drain_rate')).toBe(5)
  drain.close()
})

test('taken back: those who were asked stay, those who were not are not, and devices are taken again', async () => {
  const { drain, opened, pass, reported, taken } = drainedEdge(10)
  drain.start({ ratePerSecond: 2 })
  await pass(2_100)
  expect(drain.abort()).toBe(true)
  await pass(30_000)
  const told = opened.filter(({ transport }) => transport.ofType('goaway').length > 0)
  expect(told.length).toBeGreaterThan(1)
  expect(told.length).toBeLessThan(6)
  expect(opened.every(({ session, transport }) => !session.closed && transport.closedWith === undefined)).toBe(true)
  expect(reported).toEqual([true, false])
  expect(taken).toEqual([false, true])
  expect(drain.progress).toMatchObject({ state: 'serving', toldCount: 0, sessionCount: 10 })
  // And again: they are asked once more.
  drain.start()
  await pass(2_000)
  expect(opened.every(({ transport }) => transport.ofType('goaway').length > 0)).toBe(true)
  drain.close()
})

test('a session that is still registering when its turn comes is let in and then asked: its device may have given up another one for it', async () => {
  const { drain, pass, install } = drainedEdge(0)
  const { session, transport } = install()
  drain.start()
  await pass(1_500)
  expect(session.closed).toBe(false)
  session.handle({ type: 'registered', epoch: 7, attempts: 1, replaced: [] })
  expect(transport.frames.map(({ type }) => type)).toEqual(['welcome', 'goaway'])
  await pass(3_000)
  expect(transport.closedWith).toBe(closeKinds.drain)
  drain.close()
})

test('a drain that is taken back asks nobody who was registering', async () => {
  const { drain, pass, install } = drainedEdge(0)
  const { session, transport } = install()
  drain.start()
  await pass(1_500)
  expect(drain.abort()).toBe(true)
  session.handle({ type: 'registered', epoch: 7, attempts: 1, replaced: [] })
  await pass(10_000)
  expect(transport.frames.map(({ type }) => type)).toEqual(['welcome'])
  drain.close()
})

test('stopping ends when the last socket has closed, also after an operator has drained the edge; then nothing is taken back', async () => {
  const { drain, opened, pass, clock } = drainedEdge(2)
  const timersBefore = clock.pendingTimers
  drain.start()
  await pass(1_500)
  let stopped = false
  void drain.stop().then(() => {
    stopped = true
  })
  expect(drain.abort()).toBe(false)
  opened[0]?.session.socketClosed()
  await pass(100)
  expect(stopped).toBe(false)
  opened[1]?.session.socketClosed()
  await pass(100)
  expect(stopped).toBe(true)
  expect(drain.progress.state).toBe('gone')
  await drain.stop()
  expect(clock.pendingTimers).toBe(timersBefore)
})
