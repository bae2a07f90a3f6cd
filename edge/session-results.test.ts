import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { AwaitedResults } from './awaited-results.ts'
import { closeKinds } from './close-codes.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { unwritten } from './entry.ts'
import { FinalAnswers, finalAnswersResultBytesMax } from './final-answers.ts'
import { awaitedPerSessionMax } from './session-messages.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { FakeSink, fakeEdge } from './testing/fake-session.ts'

const { WRITTEN, ACKNOWLEDGED, NACKED, RESULT, CLOSED_UNACKNOWLEDGED } = OutcomeKind

const ack = (...ids: string[]) => JSON.stringify({ type: 'ack', ids })
const nack = (id: string, reason: string) => JSON.stringify({ type: 'nack', id, reason })
const result = (id: string, fields: object = { status: 'ok' }) => JSON.stringify({ type: 'result', id, ...fields })
const wanting = (id: string, more = {}) => deliveryOf({ id, confirm: 'RESULT', ...more })

describe('a message whose result is wanted', () => {
  test('is acknowledged, then has its result, with data as JSON', () => {
    const { open, lateAnswers } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.receive(ack('a'))
    session.receive(result('a', { status: 'ok', data: { files: 3 }, message: 'done' }))
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
    const last = sink.outcomes.at(-1)
    expect(last?.result).toEqual({ ok: true, data: Buffer.from('{"files":3}'), message: 'done' })
    expect(last).toMatchObject({ final: false, sessionId: session.sessionId })
    expect(last?.writtenTime).toBeGreaterThan(0)
    expect(last?.answeredTime).toBeGreaterThan(0)
    expect(lateAnswers).toEqual([])
  })

  test('a result alone acknowledges too; one that failed is a result, not a refusal', () => {
    const { session } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.receive(result('a', { status: 'failed', message: 'disk full' }))
    expect(sink.kinds(1)).toEqual([WRITTEN, RESULT])
    expect(sink.outcomes.at(-1)?.result).toEqual({ ok: false, data: Buffer.alloc(0), message: 'disk full' })
  })

  test('takes no place among the unanswered ones once it is acknowledged', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    for (let index = 0; index < 60; index++) session.deliver(wanting(`m${index}`), { sink, deliveryId: index })
    expect(transport.ofType('message')).toHaveLength(48)
    session.receive(ack(...Array.from({ length: 48 }, (_, index) => `m${index}`)))
    expect(transport.ofType('message')).toHaveLength(60)
    session.receive(result('m3'))
    expect(sink.kinds(3)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
  })

  test('a delivery of it that comes between joins: it gets both outcomes so far, then the result, and nothing is written', () => {
    const { session, transport } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.receive(ack('a'))
    session.deliver(wanting('a'), { sink, deliveryId: 2 })
    expect(sink.kinds(2)).toEqual([WRITTEN, ACKNOWLEDGED])
    session.receive(result('a'))
    expect(sink.kinds(2)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
    expect(transport.ofType('message')).toHaveLength(1)
  })

  test('may be refused after all', () => {
    const { session } = fakeEdge().open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.receive(ack('a'))
    session.receive(nack('a', 'no'))
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED, NACKED])
  })

  test('a second acknowledgement, and a second result, are repeats', async () => {
    const { open, metrics, lateAnswers } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    for (const frame of [ack('a'), ack('a'), result('a'), result('a'), ack('a')]) session.receive(frame)
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'repeated' })).toBe(3)
    expect(lateAnswers).toEqual([])
  })

  test('whose stream has gone meanwhile has its result reported', () => {
    const { open, lateAnswers } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.receive(ack('a'))
    sink.ended = true
    session.receive(result('a', { status: 'ok', data: 1 }))
    expect(lateAnswers).toMatchObject([
      { deviceId: 'tv-1', messageId: 'a', kind: RESULT, result: { ok: true, data: Buffer.from('1') } },
    ])
  })

  test('whose session has ended is no unacknowledged one; a result on the next session is reported', () => {
    const { open, lateAnswers, host } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(wanting('a'), { sink, deliveryId: 1 })
    session.deliver(wanting('b'), { sink, deliveryId: 2 })
    session.receive(ack('a'))
    session.socketClosed()
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(sink.kinds(2)).toEqual([WRITTEN, CLOSED_UNACKNOWLEDGED])
    expect(host.awaitedResults.size).toBe(0)
    expect(host.finalAnswers.find('tv-1', 'a')).toMatchObject({ kind: ACKNOWLEDGED })
    open().session.receive(result('a'))
    expect(lateAnswers).toMatchObject([{ messageId: 'a', kind: RESULT }])
  })

  test('does not keep a session that is being closed', () => {
    const { session, transport } = fakeEdge().open()
    session.deliver(wanting('a'), { sink: new FakeSink(), deliveryId: 1 })
    session.receive(ack('a'))
    session.handle({ type: 'replaced', replacer: { epoch: 999, sessionId: 'new' } })
    expect(transport.closedWith).toBe(closeKinds.superseded)
  })

  test('is let go above the bound of its session, the oldest first; its result is then reported', async () => {
    const { open, metrics, lateAnswers, host } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    for (let index = 0; index <= awaitedPerSessionMax; index++) {
      session.deliver(wanting(`m${index}`), { sink, deliveryId: index })
      session.receive(ack(`m${index}`))
    }
    expect(host.awaitedResults.size).toBe(awaitedPerSessionMax)
    expect(await metricValue(metrics, 'push_edge_awaited_results_forgotten_total')).toBe(1)
    session.receive(result('m0'))
    session.receive(result('m1'))
    expect(sink.kinds(0)).toEqual([WRITTEN, ACKNOWLEDGED])
    expect(sink.kinds(1)).toEqual([WRITTEN, ACKNOWLEDGED, RESULT])
    expect(lateAnswers).toMatchObject([{ messageId: 'm0', kind: RESULT }])
  })
})

test('above the bound of the edge the oldest of all sessions is let go', () => {
  const awaited = new AwaitedResults(createEdgeMetrics(createMetrics()), 2)
  const forgotten: string[] = []
  for (const name of ['a', 'b', 'c']) {
    const entry = { messageId: name } as Parameters<AwaitedResults['add']>[0]
    awaited.add(entry, {
      forget(old) {
        forgotten.push(old.messageId)
        awaited.remove(old)
      },
    })
  }
  expect(forgotten).toEqual(['a'])
  expect(awaited.size).toBe(2)
})

test('results that are remembered for repeats are bounded in bytes', () => {
  const answers = new FinalAnswers(new SteeredClock())
  const data = Buffer.alloc(48 * 1024)
  const count = Math.floor(finalAnswersResultBytesMax / data.length) + 1
  for (let index = 0; index < count; index++) {
    answers.remember('d', `m${index}`, { ...unwritten(RESULT, 's'), result: { ok: true, data, message: '' } })
  }
  expect(answers.find('d', 'm0')).toBeUndefined()
  expect(answers.size).toBe(count - 1)
  expect(answers.find('d', 'm1')).toBeDefined()
})

describe('answers that nobody here waits for', () => {
  test('to a message that this edge did not send go up, once, with the device’s words', async () => {
    const { open, lateAnswers, metrics } = fakeEdge()
    const { session } = open()
    session.receive(ack('a'))
    session.receive(ack('a'))
    session.receive(nack('b', 'no such command'))
    session.receive(result('c', { status: 'ok', data: [1] }))
    session.receive(result('c', { status: 'ok', data: [1] }))
    expect(lateAnswers).toMatchObject([
      { deviceId: 'tv-1', messageId: 'a', kind: ACKNOWLEDGED, result: undefined },
      { messageId: 'b', kind: NACKED, detail: 'no such command' },
      { messageId: 'c', kind: RESULT, result: { ok: true, data: Buffer.from('[1]') } },
    ])
    for (const { answeredTime } of lateAnswers) expect(answeredTime).toBeGreaterThan(0)
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'repeated' })).toBe(2)
  })

  test('an acknowledgement that was reported does not hide the result after it', () => {
    const { open, lateAnswers } = fakeEdge()
    const { session } = open()
    session.receive(ack('a'))
    session.receive(result('a'))
    expect(lateAnswers.map(({ kind }) => kind)).toEqual([ACKNOWLEDGED, RESULT])
  })

  test('whose stream has ended go up, and a repeated delivery is given the answer', () => {
    const { open, lateAnswers, host } = fakeEdge()
    const { session } = open()
    const sink = new FakeSink()
    session.deliver(deliveryOf({ id: 'a' }), { sink, deliveryId: 1 })
    sink.ended = true
    session.receive(ack('a'))
    session.receive(ack('a'))
    expect(lateAnswers).toMatchObject([{ messageId: 'a', kind: ACKNOWLEDGED }])
    expect(host.finalAnswers.find('tv-1', 'a')).toMatchObject({ kind: ACKNOWLEDGED })
  })

  test('what was told on a stream is not reported as well', () => {
    const { open, lateAnswers } = fakeEdge()
    const { session } = open()
    session.deliver(deliveryOf({ id: 'a' }), { sink: new FakeSink(), deliveryId: 1 })
    session.receive(ack('a'))
    session.receive(ack('a'))
    expect(lateAnswers).toEqual([])
  })

  test('an id that no router gives out goes nowhere', async () => {
    const { open, lateAnswers, metrics } = fakeEdge()
    open().session.receive(ack('not an id'))
    expect(lateAnswers).toEqual([])
    expect(await metricValue(metrics, 'push_edge_device_answers_total', { became: 'malformed' })).toBe(1)
  })
})
