import { expect, onTestFinished, test } from 'vitest'
import { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { MessageState } from '../../gen/push/v1/message.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { receipt, startReceiptRegistry } from '../testing/receipt-registry.ts'
import { createReceipts, type ReceiptsOptions } from './receipts.ts'

async function bench(options: Partial<ReceiptsOptions> = {}) {
  const registry = await startReceiptRegistry()
  onTestFinished(() => registry.stop())
  const metrics = createMetrics()
  const log = recordingLog()
  const receipts = createReceipts({
    registry: registry.connection,
    clock: systemClock,
    log,
    metrics,
    callDeadlineMs: 30_000,
    ...options,
  })
  const counted = (name: string, result: string) => metricValue(metrics, `push_router_${name}_total`, { result })
  return { registry, receipts, log, counted }
}

const acked = (messageId: string, more: Partial<Receipt> = {}) => receipt(messageId, { state: MessageState.ACKNOWLEDGED, more })
const many = (count: number) => Array.from({ length: count }, (_, index) => acked(`m${index}`))
const failureOf = (recording: Promise<void>): Promise<unknown> =>
  recording.then(
    () => 'recorded',
    (error: unknown) => error,
  )

test('whatever is recorded in one tick goes out together, at most 1,000 a call', async () => {
  const { registry, receipts, counted } = await bench()
  await Promise.all(many(1_001).map((one) => receipts.record(one)))
  expect(registry.batches.sort()).toEqual([1, 1_000])
  expect(registry.of('m7')).toEqual([acked('m7')])
  expect(await counted('receipts', 'recorded')).toBe(1_001)
})

test('a call stays below what the transport takes, however large the results are', async () => {
  const { registry, receipts } = await bench()
  const large = many(200).map((one) => ({ ...one, result: Buffer.alloc(48 * 1024) }))
  await Promise.all(large.map((one) => receipts.record(one)))
  expect(registry.batches.reduce((sum, size) => sum + size, 0)).toBe(200)
  expect(Math.max(...registry.batches)).toBe(42)
})

test('it resolves only once the row is written', async () => {
  const { registry, receipts } = await bench()
  let open = () => {}
  registry.gate = new Promise<void>((resolve) => {
    open = resolve
  })
  let recorded = false
  const recording = receipts.record(acked('m')).then(() => {
    recorded = true
  })
  await expect.poll(() => registry.waitingCount).toBe(1)
  expect(recorded).toBe(false)
  open()
  await recording
  expect(registry.of('m')).toHaveLength(1)
})

test.each(['REGISTRY_UNAVAILABLE', 'BACKLOG_FULL', 'INTERNAL', 'DEADLINE_PASSED', 'NOT_IMPLEMENTED'] as const)(
  'a registry that answers %s has not taken the receipt',
  async (reason) => {
    const { registry, receipts, counted } = await bench()
    registry.fails = new PushError(reason, 'no')
    expect(await failureOf(receipts.record(acked('m')))).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    expect(await counted('receipts', 'unavailable')).toBe(1)
    registry.fails = undefined
    await receipts.record(acked('m'))
    expect(registry.of('m')).toHaveLength(1)
  },
)

test('a registry that does not answer in time, or is not there, has not taken the receipt', async () => {
  const { registry, receipts } = await bench({ callDeadlineMs: 50 })
  const answered = Promise.withResolvers<void>()
  registry.gate = answered.promise
  expect(await failureOf(receipts.record(acked('m')))).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  answered.resolve()
  await registry.stop()
  expect(await failureOf(receipts.record(acked('m')))).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
})

test('when too many wait for the registry the next one is refused at once', async () => {
  const { registry, receipts } = await bench({ queuedMax: 2 })
  const first = many(2).map((one) => receipts.record(one))
  expect(await failureOf(receipts.record(acked('over')))).toMatchObject({
    reason: 'REGISTRY_UNAVAILABLE',
    cause: { reason: 'BACKLOG_FULL' },
  })
  await Promise.all(first)
  expect(registry.of('over')).toEqual([])
})

test('a malformed receipt fails alone, for good, and is told', async () => {
  const { registry, receipts, log, counted } = await bench()
  registry.malformed = 'm1'
  const ends = await Promise.all(many(3).map((one) => failureOf(receipts.record(one))))
  expect(ends).toEqual(['recorded', expect.objectContaining({ reason: 'INTERNAL' }), 'recorded'])
  expect([registry.of('m0'), registry.of('m1'), registry.of('m2')].map((rows) => rows.length)).toEqual([1, 0, 1])
  expect(log.withPhrase('the registry refuses a receipt')[0]?.facts).toMatchObject({ message_id: 'm1' })
  expect(await counted('receipts', 'refused')).toBe(1)
})

test('the copy follows the row, and not when there is none', async () => {
  const copies: Receipt[] = []
  const { registry, receipts } = await bench({
    async publishCopy(key, value) {
      expect(registry.of(key)).toHaveLength(1)
      copies.push(Receipt.decode(value))
    },
  })
  await receipts.record(acked('m', { result: Buffer.from('ok') }))
  expect(copies).toEqual([acked('m', { result: Buffer.from('ok') })])
  registry.fails = new PushError('REGISTRY_UNAVAILABLE', 'no')
  await failureOf(receipts.record(acked('n')))
  expect(copies).toHaveLength(1)
})

test('a copy that fails is counted and told once, and keeps nothing from being recorded', async () => {
  let fails = true
  const { receipts, log, counted } = await bench({
    publishCopy: () => (fails ? Promise.reject(new PushError('QUEUE_UNAVAILABLE', 'no')) : Promise.resolve()),
  })
  await Promise.all(many(3).map((one) => receipts.record(one)))
  await expect.poll(() => counted('receipt_copies', 'failed')).toBe(3)
  expect(log.withPhrase('copies of receipts are not taken; consumers of them miss some')).toHaveLength(1)
  fails = false
  await receipts.record(acked('m'))
  await expect.poll(() => log.withPhrase('copies of receipts are taken again').length).toBe(1)
})

test('with too many copies under way the next ones are left out, counted', async () => {
  let started = 0
  const { receipts, counted } = await bench({
    copiesInFlightMax: 2,
    publishCopy: () => {
      started++
      return new Promise(() => {})
    },
  })
  await Promise.all(many(5).map((one) => receipts.record(one)))
  expect(started).toBe(2)
  expect(await counted('receipt_copies', 'left_out')).toBe(3)
})

test('large copies are left out before they take the room of messages, and go again when there is room', async () => {
  let finish = () => {}
  const { receipts, counted } = await bench({
    copiesBytesMax: 1_000,
    publishCopy: () =>
      new Promise((resolve) => {
        finish = resolve
      }),
  })
  const large = (messageId: string) => acked(messageId, { result: Buffer.alloc(600) })
  await receipts.record(large('m1'))
  await receipts.record(large('m2'))
  expect(await counted('receipt_copies', 'left_out')).toBe(1)
  finish()
  await expect.poll(() => counted('receipt_copies', 'sent')).toBe(1)
  await receipts.record(large('m3'))
  expect(await counted('receipt_copies', 'left_out')).toBe(1)
})
