import { describe, expect, test } from 'vitest'
import { InboxReadyResult, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { createStuckPlaces } from './stuck-places.ts'
import { dispatchBench, settle } from './testing/dispatch-bench.ts'

test('a quarter of what may be in flight, one at least; each kind has places of its own', async () => {
  const metrics = createMetrics()
  let answers = true
  const placesFor = createStuckPlaces({ someEdgeAnswers: () => answers, metrics })
  const places = placesFor('normal', 8)
  const few = placesFor('low', 2)
  expect([places.take(), places.take(), places.take(), few.take(), few.take()]).toEqual([true, true, false, true, false])
  expect(await metricValue(metrics, 'push_router_stuck', { lane: 'normal' })).toBe(2)
  expect(await metricValue(metrics, 'push_router_stuck_refused_total', { lane: 'normal' })).toBe(1)
  places.release()
  expect(places.take()).toBe(true)
  expect(places.keep()).toBe(true)
  // While nobody answers, nobody else needs the room.
  answers = false
  expect([places.take(), places.take(), places.keep()]).toEqual([true, true, true])
  answers = true
  expect([places.keep(), places.keep(), places.keep()]).toEqual([false, false, true])
  expect(await metricValue(metrics, 'push_router_stuck', { lane: 'normal' })).toBe(2)
})

/** Messages `m0` … for the devices of an edge, each its own, and one for a device elsewhere. */
function deadEdge(bench: ReturnType<typeof dispatchBench>, count: number) {
  for (let n = 0; n < count; n++) bench.connect(`d${n}`, `dead:s${n}`)
  bench.connect('other', 'e2:s')
  // It has a link, and answers.
  bench.link('e2')
  return Array.from({ length: count }, (_, n): [number, ReturnType<typeof bench.queued>] => [n, bench.queued(`m${n}`, `d${n}`)])
}

describe('edges that do not answer', () => {
  test('hold a share of what may be in flight: what is above it is stored, its poke owed, and the devices of others get theirs', async () => {
    const bench = dispatchBench({ inFlightMax: 8 })
    const lease = bench.lease()
    const messages = deadEdge(bench, 20)
    bench.link('dead').state = 'down'
    bench.link('dead').pokeAnswers = ['unanswered']
    await bench.hand(lease, messages)
    await settle()
    expect(bench.settled()).toHaveLength(18)
    expect(new Set(bench.settled().map((line) => line.replace(/^m\d+ /, '')))).toEqual(new Set(['STORED UNREACHABLE']))
    expect(bench.link('dead').owed).toHaveLength(18)
    expect(lease.paused).toBe(false)
    await bench.hand(lease, [[20, bench.queued('m', 'other')]])
    bench.link('e2').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.settled()).toContain('m ACKNOWLEDGED')
    // The two that are held wait as long as any other.
    await bench.clock.advance(62_000)
    await settle()
    expect(bench.settled()).toHaveLength(21)
    expect(lease.commits.at(-1)).toBe(21n)
    expect(await metricValue(bench.metrics, 'push_router_stuck', { lane: 'normal' })).toBe(0)
  })

  test('hold no more where all messages are for one device: those that wait for their turn count as well', async () => {
    const bench = dispatchBench({ inFlightMax: 8 })
    const lease = bench.lease()
    deadEdge(bench, 1)
    bench.link('dead').state = 'down'
    await bench.hand(
      lease,
      Array.from({ length: 8 }, (_, n) => [n, bench.queued(`m${n}`, 'd0')]),
    )
    await settle()
    expect(bench.settled()).toHaveLength(6)
    // The first is the one that is tried again, and the second has its turn when it is through.
    bench.link('dead').state = 'open'
    await bench.clock.advance(2_000)
    await settle()
    bench.link('dead').say('m0', OutcomeKind.ACKNOWLEDGED)
    await settle()
    bench.link('dead').say('m1', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.settled().slice(6)).toEqual(['m0 ACKNOWLEDGED', 'm1 ACKNOWLEDGED'])
    expect(await metricValue(bench.metrics, 'push_router_stuck', { lane: 'normal' })).toBe(0)
  })

  test('hold no more where they take what is sent and say nothing of it', async () => {
    const bench = dispatchBench({ inFlightMax: 8 })
    const lease = bench.lease()
    const messages = deadEdge(bench, 8)
    bench.link('dead').answers = false
    bench.link('dead').pokeAnswers = ['unanswered']
    await bench.hand(lease, messages)
    await settle()
    expect(bench.settled()).toHaveLength(6)
    expect(bench.link('dead').offered.map(({ messageId }) => messageId)).toEqual(['m0', 'm1'])
    // With the first word a place is free again.
    bench.link('dead').say('m0', OutcomeKind.WRITTEN)
    await bench.hand(lease, [[8, bench.queued('m8', 'd3')]])
    expect(bench.link('dead').offered.map(({ messageId }) => messageId)).toEqual(['m0', 'm1', 'm8'])
  })

  test('hold stored messages whose poke they do not answer within the same bound', async () => {
    const bench = dispatchBench({ inFlightMax: 8 })
    const lease = bench.lease()
    const messages = deadEdge(bench, 8)
    await bench.hand(lease, messages)
    bench.link('dead').pokeAnswers = ['unanswered']
    for (let n = 0; n < 8; n++) bench.link('dead').say(`m${n}`, OutcomeKind.SLOW_CONSUMER)
    await settle()
    expect(bench.settled()).toHaveLength(6)
    expect(bench.link('dead').owed).toHaveLength(6)
    bench.link('dead').pokeAnswers = [InboxReadyResult.ACCEPTED]
    await bench.clock.advance(2_000)
    await settle()
    expect(lease.commits.at(-1)).toBe(8n)
  })

  test('are waited for by all, as long as no other edge answers: nobody is harmed by that', async () => {
    const bench = dispatchBench({ inFlightMax: 8 })
    const lease = bench.lease()
    const messages = deadEdge(bench, 8)
    for (const edge of ['dead', 'e2']) bench.link(edge).state = 'down'
    await bench.hand(lease, messages)
    await bench.clock.advance(3_000)
    await settle()
    expect(bench.settled()).toEqual([])
    expect(lease.paused).toBe(true)
    // One is back: what the others need is theirs again.
    bench.link('e2').state = 'open'
    bench.link('dead').pokeAnswers = ['unanswered']
    await bench.clock.advance(2_000)
    await settle()
    expect(bench.settled()).toHaveLength(6)
    expect(lease.paused).toBe(false)
  })

  test('with time to live 0: what has no place is dropped as unreachable', async () => {
    const bench = dispatchBench({ inFlightMax: 4 })
    deadEdge(bench, 2)
    bench.link('dead').state = 'down'
    const nowOrNever = { ttl: { seconds: 0, nanos: 0 } }
    await bench.hand(
      bench.lease(),
      [0, 1].map((n) => [n, bench.queued(`m${n}`, `d${n}`, nowOrNever)]),
    )
    await settle()
    expect(bench.settled()).toEqual(['m1 DROPPED UNREACHABLE'])
  })

  test('hold a share of the direct calls too: the others are answered at once that their message is stored', async () => {
    const bench = dispatchBench({ directInFlightMax: 4 })
    deadEdge(bench, 2)
    bench.link('dead').state = 'down'
    bench.link('dead').pokeAnswers = ['unanswered']
    const held = bench.dispatcher.deliverDirect(bench.queued('m0', 'd0'), 3_000)
    await settle()
    const told = await bench.dispatcher.deliverDirect(bench.queued('m1', 'd1'), 3_000)
    expect(told).toMatchObject({ state: MessageState.STORED, reason: StateReason.UNREACHABLE })
    const other = bench.dispatcher.deliverDirect(bench.queued('m', 'other'), 3_000)
    await settle()
    bench.link('e2').say('m', OutcomeKind.ACKNOWLEDGED)
    expect((await other).state).toBe(MessageState.ACKNOWLEDGED)
    await bench.clock.advance(4_000)
    expect((await held).state).toBe(MessageState.STORED)
  })
})
