import { expect, test } from 'vitest'
import type { FlushInboxResponse } from '../gen/push/internal/v1/uplink.ts'
import { FlushResult } from '../gen/push/internal/v1/uplink.ts'
import { PushError } from '../service-kit/errors.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { createFlushCalls, type Flusher, readTimeoutMs } from './flush-calls.ts'
import { flushResponse } from './testing/fake-plane.ts'

const { READING, EMPTY } = FlushResult

function setup(flushInbox: (sessionId: string) => AsyncIterable<FlushInboxResponse>, concurrentMax = 2) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const requests: { sessionId?: string }[] = []
  const calls = createFlushCalls({
    uplink: {
      async *flushInbox(request, options) {
        requests.push(request)
        const aborted = new Promise<never>((_, reject) => {
          options?.signal?.addEventListener('abort', () => reject(new Error('aborted')), { once: true })
        })
        const responses = flushInbox(request.sessionId ?? '')[Symbol.asyncIterator]()
        for (;;) {
          const next = await Promise.race([responses.next(), aborted])
          if (next.done) return
          yield next.value
        }
      },
    },
    edgeId: 'edge-1',
    edgeAddress: 'here:1',
    concurrentMax,
    clock,
    log,
    metrics: createEdgeMetrics(metrics),
  })
  const events: string[] = []
  const flusher = (sessionId: string, wanted = true): Flusher => ({
    deviceId: `of-${sessionId}`,
    sessionId,
    called() {
      events.push(`${sessionId} called`)
      return wanted
    },
    heard: ({ result }) => events.push(`${sessionId} ${result}`),
    failed: () => events.push(`${sessionId} failed`),
  })
  return { clock, metrics, log, requests, calls, events, flusher }
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 5))

test('names edge, device and session, and hands on what is heard up to the end', async () => {
  const { calls, requests, events, flusher } = setup(async function* () {
    yield flushResponse(READING)
    yield flushResponse(EMPTY)
    yield flushResponse(READING) // of no meaning any more
  })
  calls.ask(flusher('s'))
  await settled()
  expect(requests).toEqual([{ edgeId: 'edge-1', edgeAddress: 'here:1', deviceId: 'of-s', sessionId: 's' }])
  expect(events).toEqual(['s called', `s ${READING}`, `s ${EMPTY}`])
  await calls.close()
})

test('so many at once; the rest waits, each once, and has its turn in the order of asking', async () => {
  const ends: (() => void)[] = []
  const { calls, events, flusher, metrics } = setup(async function* () {
    yield flushResponse(READING)
    await new Promise<void>((resolve) => ends.push(resolve))
    yield flushResponse(EMPTY)
  })
  const [a, b, c, d] = ['a', 'b', 'c', 'd'].map((id) => flusher(id, id !== 'c'))
  for (const each of [a, b, c, c, d]) if (each !== undefined) calls.ask(each)
  await settled()
  expect(events.filter((event) => event.endsWith('called'))).toEqual(['a called', 'b called'])
  expect(await metricValue(metrics, 'push_edge_flushes_queued')).toBe(2)
  ends[0]?.()
  await settled()
  // c is not wanted any more by then.
  expect(events.filter((event) => event.endsWith('called'))).toEqual(['a called', 'b called', 'c called', 'd called'])
  expect(await metricValue(metrics, 'push_edge_flushes_active')).toBe(2)
  for (const end of ends) end()
  await settled()
  for (const end of ends) end()
  await settled()
  expect(await metricValue(metrics, 'push_edge_flushes_active')).toBe(0)
  await calls.close()
})

test('a call that fails, a stream that ends early or breaks, is a failure; one line a second is logged', async () => {
  const { calls, events, flusher, log, clock } = setup(async function* (sessionId) {
    if (sessionId === 'fails') throw new PushError('REGISTRY_UNAVAILABLE', 'away')
    yield flushResponse(READING)
    if (sessionId === 'breaks') throw new Error('reset')
  }, 10)
  for (const id of ['fails', 'breaks', 'ends']) calls.ask(flusher(id))
  await settled()
  expect(events.filter((event) => event.endsWith('failed')).sort()).toEqual(['breaks failed', 'ends failed', 'fails failed'])
  expect(log.withPhrase('an inbox could not be flushed; trying again')).toHaveLength(1)
  await calls.close()
  expect(clock.pendingTimers).toBe(0)
})

test('a router that does not read in time has failed; one that has read may take longer', async () => {
  const { calls, events, flusher, clock } = setup(async function* (sessionId) {
    if (sessionId === 'reads') yield flushResponse(READING)
    await new Promise(() => {})
  })
  calls.ask(flusher('hangs'))
  calls.ask(flusher('reads'))
  await settled()
  await clock.advance(readTimeoutMs)
  await settled()
  expect(events).toContain('hangs failed')
  expect(events).not.toContain('reads failed')
  await calls.close()
  expect(events).toContain('reads failed')
  expect(clock.pendingTimers).toBe(0)
})
