import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Metadata } from 'nice-grpc-common'
import { expect, onTestFinished, test } from 'vitest'
import { DeadLetter, QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { MessageClass, Priority, StateReason } from '../../gen/push/v1/message.ts'
import { DeadLetterReplayState } from '../../gen/push/v1/operations.ts'
import { PushError } from '../../service-kit/errors.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { emptyMessage, settle } from '../dispatch/testing/dispatch-bench.ts'
import { openEmbeddedQueue } from '../queue/embedded/embedded-queue.ts'
import type { OutgoingRecord } from '../queue/message-queue.ts'
import { RecordTaker } from '../queue/testing/record-taker.ts'
import { createDeadLetterCalls } from './dead-letters.ts'
import { createPermissions } from './permissions.ts'
import { type Policy, parsePolicy } from './policy-file.ts'

const { REPLAYED, WOULD_REPLAY, EXPIRED, FAILED, NOT_TRIED } = DeadLetterReplayState

/** The calls before a queue in a file, in steered time. */
async function bench({ rate = 10, policy }: { rate?: number; policy?: Policy } = {}) {
  const folder = await mkdtemp(join(tmpdir(), 'pushplane-letters-'))
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const queue = openEmbeddedQueue({ path: join(folder, 'queue.db'), log: silentLog, metrics, clock })
  onTestFinished(async () => {
    await queue.close()
    await rm(folder, { recursive: true, force: true })
  })
  const published: OutgoingRecord[] = []
  /** What the next publishes are refused with. */
  const refusals: (PushError | undefined)[] = []
  /** Holds readings back while it is set. */
  const gate: { wait?: Promise<void> } = {}
  const calls = createDeadLetterCalls({
    permissions: createPermissions(() => policy, clock),
    queue: {
      async listDeadLetters(page) {
        await gate.wait
        return queue.listDeadLetters(page)
      },
      readDeadLetters: (positions) => queue.readDeadLetters(positions),
      purgeDeadLettersBefore: (timeMs) => queue.purgeDeadLettersBefore(timeMs),
      async publish(record) {
        const refusal = refusals.shift()
        if (refusal) throw refusal
        await queue.publish(record)
        published.push(record)
      },
    },
    replayRatePerSecond: rate,
    clock,
    log: silentLog,
    metrics,
  })
  const ended = new AbortController()
  const context = (deadlineInMs?: number) => {
    const metadata = Metadata()
    if (deadlineInMs !== undefined) metadata.set('push-call-deadline-ms', String(clock.now() + deadlineInMs))
    return { metadata, signal: ended.signal } as Parameters<typeof calls.listDeadLetters>[1]
  }
  const message = (messageId: string, more: Partial<QueuedMessage> = {}) =>
    QueuedMessage.fromPartial({
      messageId,
      message: { ...emptyMessage(), target: { $case: 'deviceId', value: `tv-${messageId}` }, priority: Priority.HIGH },
      acceptTime: clock.nowMicros(),
      expireTime: clock.nowMicros() + 3_600_000_000,
      principal: 'someone',
      ...more,
    })
  const bury = async (queued: QueuedMessage | Buffer, more: Partial<DeadLetter> = {}) => {
    const letter = DeadLetter.fromPartial({
      originTopic: 'push.high',
      originPartition: 3,
      originOffset: 17,
      reason: StateReason.TOO_LARGE,
      detail: 'too large',
      time: clock.nowMicros(),
      value: Buffer.isBuffer(queued) ? queued : Buffer.from(QueuedMessage.encode(queued).finish()),
      messageId: Buffer.isBuffer(queued) ? '' : queued.messageId,
      ...more,
    })
    await queue.publishDeadLetter('tv', DeadLetter.encode(letter).finish())
    const { letters } = await queue.listDeadLetters({ limit: 1_000 })
    const last = letters.at(-1)
    return `${last?.partition}:${last?.offset}`
  }
  const replay = (positions: string[], { dryRun = false, deadlineInMs }: { dryRun?: boolean; deadlineInMs?: number } = {}) =>
    Promise.resolve(calls.replayDeadLetters({ positions, dryRun }, context(deadlineInMs)))
  return { clock, metrics, queue, calls, published, refusals, gate, context, message, bury, replay, abort: () => ended.abort() }
}

const statesOf = (answer: { replays?: readonly { state?: DeadLetterReplayState }[] }) => answer.replays?.map(({ state }) => state)

test('a list tells where each came from, why, and what it was for; pages go on where the last ended', async () => {
  const { calls, context, bury, message, clock } = await bench()
  const positions = [
    await bury(message('m1')),
    await bury(Buffer.from([255]), { reason: StateReason.UNDECODABLE, detail: '' }),
    await bury(message('m3'), { originTopic: '' }),
  ]
  const first = await calls.listDeadLetters({ pageSize: 2, pageToken: '' }, context())
  expect(first.deadLetters).toEqual([
    {
      position: positions[0],
      origin: 'push.high:3:17',
      error: 'too large',
      time: { seconds: clock.now() / 1_000, nanos: 0 },
      messageId: 'm1',
      reason: StateReason.TOO_LARGE,
      key: 'tv',
    },
    expect.objectContaining({ position: positions[1], error: 'UNDECODABLE', messageId: '', reason: StateReason.UNDECODABLE }),
  ])
  const second = await calls.listDeadLetters({ pageSize: 2, pageToken: first.nextPageToken ?? '' }, context())
  expect(second).toMatchObject({ deadLetters: [{ position: positions[2], origin: '' }], nextPageToken: '' })
})

test('what is no dead letter is listed and shown all the same', async () => {
  const { calls, context, queue } = await bench()
  await queue.publishDeadLetter('tv', Buffer.from([255, 255]))
  const { deadLetters } = await calls.listDeadLetters({ pageSize: 0, pageToken: '' }, context())
  expect(deadLetters).toMatchObject([{ position: '0:1', error: 'this record of the dead-letter topic is no dead letter' }])
  expect(await calls.getDeadLetter({ position: '0:1' }, context())).toMatchObject({
    value: Buffer.from([255, 255]),
    message: undefined,
  })
})

test('one is shown whole, with the message in it where it can be read', async () => {
  const { calls, context, bury, message } = await bench()
  const queued = message('m1', { attempt: 2 })
  const position = await bury(queued)
  expect(await calls.getDeadLetter({ position }, context())).toMatchObject({
    summary: { position, messageId: 'm1' },
    value: Buffer.from(QueuedMessage.encode(queued).finish()),
    message: { target: { $case: 'deviceId', value: 'tv-m1' } },
    principal: 'someone',
    attempt: 2,
    expireTime: { seconds: queued.expireTime / 1_000_000 },
  })
  const broken = await bury(Buffer.from([255]))
  expect(await calls.getDeadLetter({ position: broken }, context())).toMatchObject({
    value: Buffer.from([255]),
    message: undefined,
  })
  await expect(calls.getDeadLetter({ position: '0:99' }, context())).rejects.toMatchObject({
    reason: 'DEAD_LETTER_UNKNOWN',
    metadata: { position: '0:99' },
  })
})

test('a replayed message is in the queue again as it was, with one attempt more, on its lane and under its own key', async () => {
  const { replay, bury, message, queue, metrics } = await bench()
  const queued = message('m1')
  const position = await bury(queued)
  expect(await replay([position])).toEqual({
    replayedCount: 1,
    replays: [{ position, messageId: 'm1', state: REPLAYED, detail: '' }],
  })
  const taker = new RecordTaker()
  await queue.consume(taker)
  await taker.count(1)
  const [record] = taker.records
  expect(record).toMatchObject({ lane: 'high', key: 'tv-m1' })
  expect(QueuedMessage.decode(record?.value ?? Buffer.alloc(0))).toEqual({ ...queued, attempt: 1 })
  expect(await metricValue(metrics, 'push_router_dead_letter_replays_total', { result: 'replayed' })).toBe(1)
})

test('a dry run says the same and puts nothing back; what has expired is left alone either way', async () => {
  const { replay, bury, message, published, clock } = await bench()
  const positions = [await bury(message('m1')), await bury(message('m2', { expireTime: clock.nowMicros() + 1_000 }))]
  await clock.advance(5)
  const dry = await replay(positions, { dryRun: true })
  expect(dry.replayedCount).toBe(1)
  expect(statesOf(dry)).toEqual([WOULD_REPLAY, EXPIRED])
  expect(dry.replays?.[1]?.detail).toMatch(/^it expired at 20\d\d-/)
  expect(published).toEqual([])
  expect(statesOf(await replay(positions))).toEqual([REPLAYED, EXPIRED])
  expect(published).toHaveLength(1)
})

test('one whose value is no message, or that is not there, stops the call before anything is put back', async () => {
  const { replay, bury, message, published } = await bench()
  const good = await bury(message('m1'))
  const garbage = await bury(Buffer.from([255]))
  const nobody = await bury(message('m3', { message: { ...emptyMessage(), target: undefined } }))
  for (const dryRun of [true, false]) {
    await expect(replay([good, garbage, nobody], { dryRun })).rejects.toMatchObject({
      reason: 'INVALID_REQUEST',
      metadata: { position: garbage },
      message: expect.stringContaining(`the dead letter at ${garbage} cannot be replayed: not a QueuedMessage`),
      violations: [{ field: 'positions' }, { field: 'positions', description: expect.stringContaining(nobody) }],
    })
    await expect(replay([good, '0:77'], { dryRun })).rejects.toMatchObject({
      reason: 'DEAD_LETTER_UNKNOWN',
      metadata: { position: '0:77' },
    })
  }
  expect(published).toEqual([])
})

test('so many go back in a second, all replays together; the rest waits, and what the call has no time for is not tried', async () => {
  const { replay, bury, message, published, clock } = await bench({ rate: 10 })
  const positions: string[] = []
  for (let index = 0; index < 20; index++) positions.push(await bury(message(`m${index}`)))
  const call = replay(positions, { deadlineInMs: 2_000 })
  await untilIdle(clock)
  expect(published).toHaveLength(1)
  for (let step = 0; step < 10; step++) await forward(clock, 100)
  expect(published).toHaveLength(11)
  for (let step = 0; step < 10; step++) await forward(clock, 100)
  const answer = await call
  // A quarter of the two seconds is kept for the answer.
  expect(answer.replayedCount).toBe(16)
  expect(published).toHaveLength(16)
  expect(answer.replays?.slice(16)).toEqual(
    positions.slice(16).map((position, index) => ({
      position,
      messageId: `m${index + 16}`,
      state: NOT_TRIED,
      detail: 'the call ended before its turn',
    })),
  )
  expect(clock.pendingTimers).toBe(0)
})

test('without a deadline a replay ends after a minute', async () => {
  const { replay, bury, message, published, clock } = await bench({ rate: 1 })
  const positions: string[] = []
  for (let index = 0; index < 80; index++) positions.push(await bury(message(`m${index}`)))
  const call = replay(positions)
  for (let step = 0; step < 61; step++) await forward(clock, 1_000)
  expect((await call).replayedCount).toBe(60)
  expect(published).toHaveLength(60)
})

test('a caller that goes away stops its replay', async () => {
  const { replay, bury, message, published, clock, abort } = await bench({ rate: 1 })
  const positions = [await bury(message('m1')), await bury(message('m2'))]
  const call = replay(positions)
  await untilIdle(clock)
  abort()
  expect(statesOf(await call)).toEqual([REPLAYED, NOT_TRIED])
  expect(published).toHaveLength(1)
  expect(clock.pendingTimers).toBe(0)
})

test('what the queue refuses is told; when it is away the rest is not tried, when one is too large the rest goes on', async () => {
  const { replay, bury, message, refusals, clock, published } = await bench({ rate: 1_000 })
  const positions: string[] = []
  for (let index = 0; index < 3; index++) positions.push(await bury(message(`m${index}`)))
  const replayed = async (refusal: PushError) => {
    refusals.push(refusal)
    const call = replay(positions)
    for (let step = 0; step < 5; step++) await forward(clock, 1)
    return statesOf(await call)
  }
  expect(await replayed(new PushError('PAYLOAD_TOO_LARGE', 'too large'))).toEqual([FAILED, REPLAYED, REPLAYED])
  published.length = 0
  expect(await replayed(new PushError('QUEUE_UNAVAILABLE', 'away'))).toEqual([FAILED, NOT_TRIED, NOT_TRIED])
  expect(published).toEqual([])
})

test('a second replay is refused while one goes on, and lists are not', async () => {
  const { replay, bury, message, clock, calls, context } = await bench({ rate: 1 })
  const positions = [await bury(message('m1')), await bury(message('m2'))]
  const first = replay(positions)
  await untilIdle(clock)
  await expect(replay(positions)).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
  expect((await calls.listDeadLetters({ pageSize: 0, pageToken: '' }, context())).deadLetters).toHaveLength(2)
  await forward(clock, 1_000)
  expect((await first).replayedCount).toBe(2)
})

test('one reads, four wait, more are refused', async () => {
  const { calls, context, gate } = await bench()
  const opened = Promise.withResolvers<void>()
  gate.wait = opened.promise
  const list = () => Promise.resolve(calls.listDeadLetters({ pageSize: 0, pageToken: '' }, context()))
  const first = Array.from({ length: 5 }, list)
  await expect(list()).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
  opened.resolve()
  expect(await Promise.all(first)).toHaveLength(5)
})

test('purging removes those before the moment, and says how many', async () => {
  const { calls, context, bury, message, clock, metrics } = await bench()
  await bury(message('m1'))
  await bury(message('m2'))
  await clock.advance(1_000)
  const before = { seconds: clock.now() / 1_000, nanos: 0 }
  const kept = await bury(message('m3'))
  expect(await calls.purgeDeadLetters({ before }, context())).toEqual({ purgedCount: 2 })
  const { deadLetters } = await calls.listDeadLetters({ pageSize: 0, pageToken: '' }, context())
  expect(deadLetters?.map(({ position }) => position)).toEqual([kept])
  expect(await metricValue(metrics, 'push_router_dead_letters_purged_total')).toBe(2)
})

test('requests that make no sense are refused, field by field', async () => {
  const { calls, context, clock } = await bench()
  const list = (pageSize: number, pageToken = '') => calls.listDeadLetters({ pageSize, pageToken }, context())
  const purge = (before?: { seconds: number; nanos: number }) => calls.purgeDeadLetters({ before }, context())
  const replay = (positions: string[]) => calls.replayDeadLetters({ positions, dryRun: true }, context())
  const cases: [string, () => Promise<unknown>][] = [
    ['page_size', () => list(-1)],
    ['page_size', () => list(1_001)],
    ['page_token', () => list(1, 'next')],
    ['position', () => calls.getDeadLetter({ position: '' }, context())],
    ['position', () => calls.getDeadLetter({ position: '0:-1' }, context())],
    ['position', () => calls.getDeadLetter({ position: '0:99999999999999999999' }, context())],
    ['positions', () => replay([])],
    ['positions', () => replay(Array.from({ length: 1_001 }, (_, index) => `0:${index}`))],
    ['positions', () => replay(['0:1', '0:1'])],
    ['position', () => replay(['0:1', 'x'])],
    ['before', () => purge()],
    ['before', () => purge({ seconds: -1, nanos: 0 })],
    ['before', () => purge({ seconds: 1, nanos: -5 })],
    ['before', () => purge({ seconds: clock.now() / 1_000 + 1, nanos: 0 })],
  ]
  for (const [field, call] of cases) {
    await expect(call(), field).rejects.toMatchObject({ reason: 'INVALID_REQUEST', violations: [{ field }] })
  }
})

/** Lets the queue's file be written: it does so in turns of the loop, which steered time does not move. */
async function untilIdle(clock: SteeredClock): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await settle()
  await clock.advance(0)
}

async function forward(clock: SteeredClock, ms: number): Promise<void> {
  await clock.advance(ms)
  await untilIdle(clock)
}

test('a message that its publisher may not publish any more is not put back, and the others are; a dry run says the same', async () => {
  const policy = parsePolicy(
    '{ principals: { someone: { publish: { classes: [USER], devices: [tv-a], priorities: [HIGH] } } } }',
    'policy',
  )
  const { bury, message, replay, published } = await bench({ policy })
  const of = (messageId: string) => {
    const queued = message(messageId)
    return { ...queued, message: queued.message && { ...queued.message, messageClass: MessageClass.USER } }
  }
  const positions = [await bury(of('b')), await bury(of('a'))]
  expect(await replay(positions, { dryRun: true })).toMatchObject({
    replays: [{ state: FAILED, detail: expect.stringContaining('may not publish to device tv-b') }, { state: WOULD_REPLAY }],
  })
  expect(await replay(positions)).toMatchObject({
    replayedCount: 1,
    replays: [
      { state: FAILED, detail: expect.stringContaining('its publisher may not publish it any more') },
      { state: REPLAYED },
    ],
  })
  expect(published.map(({ key }) => key)).toEqual(['tv-a'])
})
