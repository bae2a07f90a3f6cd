import { afterEach, beforeEach, expect, test } from 'vitest'
import { OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { InboxEntry, InboxKey } from '../../gen/push/internal/v1/inbox.ts'
import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../../gen/push/internal/v1/receipts.ts'
import type { LateAnswer } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { type GrpcServer, serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { createLateAnswers } from './late-answers.ts'
import { reasonName, stateName } from './state-names.ts'
import { createStateRecorder } from './state-recorder.ts'
import { dispatchBench } from './testing/dispatch-bench.ts'

const bench = dispatchBench()
let rows: Receipt[] = []
let registryDown = false
let askedCount = 0
let server: GrpcServer
let close: () => void = () => undefined
beforeEach(async () => {
  rows = []
  registryDown = false
  askedCount = 0
  server = await serveGrpc({
    address: '127.0.0.1:0',
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
    services: (adding) =>
      adding.add(ReceiptServiceDefinition, {
        async get({ messageId }) {
          askedCount++
          if (registryDown) throw new Error('down')
          return { receipts: rows.filter((row) => row.messageId === messageId) }
        },
        record: () => Promise.reject(new Error('not called')),
      }),
  })
})
afterEach(async () => {
  close()
  await server.drain(0)
})

function setUp(inboxEntries: InboxEntry[] = []) {
  const removed: InboxKey[] = []
  const recorded: Receipt[] = []
  const metrics = createMetrics()
  const registry = connectGrpc({ addresses: server.address, log: silentLog, clock: systemClock })
  close = () => registry.close()
  const receipts = {
    async record(receipt: Receipt) {
      recorded.push(receipt)
    },
  }
  const lateAnswers = createLateAnswers({
    registry,
    receipts,
    recorder: createStateRecorder(receipts, systemClock),
    inbox: {
      store: () => Promise.reject(new Error('not called')),
      read: async (deviceId) => ({ entries: inboxEntries.filter((entry) => entry.deviceId === deviceId), replaced: [] }),
      async remove(key) {
        removed.push(key)
      },
    },
    clock: systemClock,
    random: seededRandom(1),
    log: silentLog,
    metrics,
    callDeadlineMs: 2_000,
  })
  const said = () => recorded.map(({ outcome }) => `${stateName(outcome?.state ?? 0)} ${reasonName(outcome?.reason ?? 0)}`.trim())
  return { lateAnswers, removed, recorded, metrics, said }
}

const stored = (messageId: string, deviceId: string, accepted: number): Receipt => ({
  messageId,
  deviceId,
  outcome: {
    state: MessageState.STORED,
    reason: StateReason.OFFLINE,
    detail: '',
    edgeId: '',
    sessionId: '',
    hops: {
      accepted: timestampFromMicros(accepted),
      consumed: undefined,
      lookedUp: undefined,
      sentToEdge: undefined,
      written: undefined,
      answered: undefined,
    },
  },
  time: accepted,
  expireTime: accepted + 1_000_000,
  resultDeadline: 0,
  confirm: ConfirmLevel.ACKNOWLEDGED,
  result: Buffer.alloc(0),
  principal: 'p',
  deviceCount: 0,
})

const answer = (more: Partial<LateAnswer> = {}): LateAnswer => ({
  deviceId: 'd',
  messageId: 'm',
  kind: OutcomeKind.ACKNOWLEDGED,
  answeredTime: 77,
  detail: '',
  result: undefined,
  ...more,
})

test('the entry is removed at its own accept time, and the state recorded', async () => {
  const { lateAnswers, removed, recorded, said } = setUp()
  rows = [stored('m', 'd', 1_234_567)]
  await lateAnswers.take(answer())
  expect(removed).toEqual([{ deviceId: 'd', messageId: 'm', acceptTime: 1_234_567 }])
  expect(said()).toEqual(['ACKNOWLEDGED'])
  expect(recorded[0]).toMatchObject({ time: 77, expireTime: 2_234_567, principal: 'p' })
})

test('an answer to a message that was meant for another device changes nothing', async () => {
  const { lateAnswers, removed, recorded, metrics } = setUp()
  rows = [stored('m', 'other', 1)]
  await lateAnswers.take(answer())
  expect(removed).toEqual([])
  expect(recorded).toEqual([])
  expect(await metricValue(metrics, 'push_router_late_answers_total', { result: 'unknown' })).toBe(1)
})

test('without receipts the entry itself tells whose it is', async () => {
  const message = bench.queued('m', 'd', { receipts: 3 })
  const { lateAnswers, removed, recorded } = setUp([{ deviceId: 'd', message }])
  await lateAnswers.take(answer())
  expect(removed).toEqual([{ deviceId: 'd', messageId: 'm', acceptTime: message.acceptTime }])
  expect(recorded).toEqual([])
})

test('refusals and results are recorded as what they are', async () => {
  const { lateAnswers, said, recorded } = setUp()
  rows = [{ ...stored('m', 'd', 1), confirm: ConfirmLevel.RESULT }]
  await lateAnswers.take(answer({ kind: OutcomeKind.NACKED, detail: 'no' }))
  await lateAnswers.take(answer({ kind: OutcomeKind.RESULT, result: { ok: true, data: Buffer.from('{}'), message: 'done' } }))
  await lateAnswers.take(answer({ kind: OutcomeKind.RESULT, result: { ok: false, data: Buffer.alloc(0), message: 'broken' } }))
  expect(said()).toEqual(['FAILED NACKED', 'COMPLETED', 'FAILED RESULT_FAILED'])
  expect(recorded[1]?.result.toString()).toBe('{}')
})

test('a result that nobody asked for acknowledges or refuses', async () => {
  const { lateAnswers, said } = setUp()
  rows = [stored('m', 'd', 1)]
  await lateAnswers.take(answer({ kind: OutcomeKind.RESULT, result: { ok: true, data: Buffer.from('{}'), message: '' } }))
  await lateAnswers.take(answer({ kind: OutcomeKind.RESULT, result: { ok: false, data: Buffer.alloc(0), message: 'broken' } }))
  expect(said()).toEqual(['ACKNOWLEDGED', 'FAILED NACKED'])
})

test('a kind that is no answer of a device is not taken', async () => {
  const { lateAnswers, recorded } = setUp()
  rows = [stored('m', 'd', 1)]
  await lateAnswers.take(answer({ kind: OutcomeKind.WRITTEN }))
  expect(recorded).toEqual([])
})

test('while the registry is away the answer is refused, to be repeated; one from an open stream is tried again', async () => {
  const { lateAnswers, said } = setUp()
  rows = [stored('m', 'd', 1)]
  registryDown = true
  await expect(lateAnswers.take(answer())).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  lateAnswers.takeSoon(answer())
  await expect.poll(() => askedCount).toBeGreaterThan(1)
  expect(said()).toEqual([])
  registryDown = false
  await expect.poll(said).toEqual(['ACKNOWLEDGED'])
})
