import { setImmediate as tick } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createOutgoingBuffer, type OutgoingBufferOptions } from './outgoing-buffer.ts'
import { queueMetrics } from './queue-metrics.ts'

function bufferOf(bounds: Partial<OutgoingBufferOptions<string>> = {}) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const batches: Array<{ records: readonly string[]; done: (error?: Error) => void }> = []
  const buffer = createOutgoingBuffer<string>({
    send: (records) =>
      new Promise<void>((resolve, reject) => {
        batches.push({ records, done: (error) => (error ? reject(error) : resolve()) })
      }),
    sizeOf: (record) => record.length,
    recordCountMax: 100,
    bytesMax: 1_000,
    batchCountMax: 10,
    batchBytesMax: 100,
    lingerMs: 2,
    clock,
    metrics: queueMetrics(metrics),
    ...bounds,
  })
  return { buffer, batches, clock, metrics }
}

test('what waits at the tick goes out together, without lingering', async () => {
  const { buffer, batches, clock } = bufferOf()
  const sent = Promise.all(['a', 'b', 'c'].map((record) => buffer.add(record)))
  await tick()
  expect(batches.map(({ records }) => records)).toEqual([['a', 'b', 'c']])
  expect(clock.pendingTimers).toBe(0)
  batches[0]?.done()
  await sent
})

test('one batch at a time; the next one waits a moment for company, a full one does not', async () => {
  const { buffer, batches, clock } = bufferOf({ batchCountMax: 2 })
  const sent = [buffer.add('a')]
  await tick()
  sent.push(buffer.add('b'))
  await tick()
  expect(batches).toHaveLength(1)
  batches[0]?.done()
  await tick()
  expect(batches).toHaveLength(1)
  await clock.advance(2)
  await tick()
  expect(batches[1]?.records).toEqual(['b'])
  sent.push(buffer.add('c'), buffer.add('d'), buffer.add('e'))
  batches[1]?.done()
  await tick()
  expect(batches[2]?.records).toEqual(['c', 'd'])
  batches[2]?.done()
  await tick()
  await clock.advance(2)
  await tick()
  batches[3]?.done()
  await Promise.all(sent)
})

test('a batch has a bound in bytes; a record above it goes alone', async () => {
  const { buffer, batches, clock } = bufferOf({ batchBytesMax: 4 })
  const sent = Promise.all(['aa', 'bb', 'c', 'large', 'd'].map((record) => buffer.add(record)))
  for (let round = 0; round < 4; round++) {
    await clock.advance(2)
    await tick()
    batches[round]?.done()
    await tick()
  }
  await sent
  expect(batches.map(({ records }) => records)).toEqual([['aa', 'bb'], ['c'], ['large'], ['d']])
})

test('beyond the bound in records or bytes a record is refused, counting those under way, and room comes back', async () => {
  const { buffer, batches, metrics } = bufferOf({ recordCountMax: 2, bytesMax: 10 })
  const first = buffer.add('12345')
  await tick()
  await expect(buffer.add('123456')).rejects.toMatchObject({ reason: 'BACKLOG_FULL', retryAfterMs: 1_000 })
  const second = buffer.add('1')
  await expect(buffer.add('1')).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
  expect(await metricValue(metrics, 'push_router_queue_backlog_full_total')).toBe(2)
  expect(await metricValue(metrics, 'push_router_queue_backlog_records')).toBe(2)
  batches[0]?.done()
  await first
  const third = buffer.add('12345')
  buffer.rejectWaiting(new Error('enough'))
  await expect(second).rejects.toThrow('enough')
  await expect(third).rejects.toThrow('enough')
  expect(await metricValue(metrics, 'push_router_queue_backlog_records')).toBe(0)
})

test('a batch that fails fails its own records only, and those who wait for an empty buffer are told', async () => {
  const { buffer, batches, clock } = bufferOf({ batchCountMax: 1 })
  const first = buffer.add('a')
  const second = buffer.add('b')
  await tick()
  const drained = buffer.drained()
  batches[0]?.done(new Error('refused'))
  await expect(first).rejects.toThrow('refused')
  await clock.advance(2)
  await tick()
  batches[1]?.done()
  await second
  await drained
  await buffer.drained()
})

test('after those who wait were rejected the next record goes out', async () => {
  const { buffer, batches } = bufferOf()
  const first = buffer.add('a')
  await tick()
  const second = buffer.add('b')
  batches[0]?.done()
  await first
  // It lingers now.
  buffer.rejectWaiting(new Error('enough'))
  await expect(second).rejects.toThrow('enough')
  const third = buffer.add('c')
  await tick()
  batches[1]?.done()
  await third
})
