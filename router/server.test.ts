import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Status } from 'nice-grpc-common'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AuditRecord } from '../gen/push/internal/v1/queue.ts'
import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { DeviceServiceDefinition } from '../gen/push/v1/devices.ts'
import { MessageClass, MessageState } from '../gen/push/v1/message.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishMode, PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { openAuditJournal } from './audit/journal-file.ts'
import { readRouterConfig } from './config.ts'
import { openEmbeddedQueue } from './queue/embedded/embedded-queue.ts'
import { startRouter } from './server.ts'

// Nobody listens there: a router must start and answer all the same.
const nobody = '127.0.0.1:1'
// A router answers a direct call by itself a quarter of its deadline before it, at most one second: the most that a busy machine can be given.
const directDeadlineMs = 4_000

let folder = ''
let stop: () => Promise<unknown> = async () => undefined

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pushplane-router-'))
})
afterEach(async () => {
  await stop()
  rmSync(folder, { recursive: true, force: true })
})

async function start(env: Record<string, string> = {}): Promise<GrpcConnection> {
  const closing = createClosers(silentLog, systemClock)
  stop = () => closing.close({ graceMs: 5_000 })
  const router = await startRouter({
    config: readRouterConfig({
      ROUTER_LISTEN_ADDRESS: '127.0.0.1:0',
      ROUTER_REGISTRY_ADDRESSES: nobody,
      ROUTER_DRAIN_GRACE_MS: '100',
      ROUTER_ACK_TIMEOUT_MS: '100',
      ...(env.ROUTER_KAFKA_BROKERS ? {} : { ROUTER_QUEUE_PATH: join(folder, 'queue.sqlite') }),
      ...env,
    }),
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    metrics: createMetrics(),
    closers: closing,
    onFatal: (cause) => expect.unreachable(String(cause)),
  })
  const connection = connectGrpc({ addresses: router.address, log: silentLog, clock: systemClock })
  closing.add('test connection', () => connection.close())
  return connection
}

async function failureOf(call: Promise<unknown>) {
  const outcome = await call.then(
    () => undefined,
    (error: unknown) => callErrorOf(error),
  )
  if (!outcome) throw new Error('the call was answered')
  return outcome
}

describe('a router without a registry', () => {
  test('takes queued messages: accepted means durable, not delivered', async () => {
    const connection = await start()
    const answer = await connection
      .client(PublishServiceDefinition)
      .publish({ message: { target: { $case: 'deviceId', value: 'd' } } }, { deadlineMs: 10_000 })
    expect(answer.state).toBe(MessageState.ACCEPTED)
    expect(answer.outcome).toBeUndefined()
    expect((answer.expireTime?.seconds ?? 0) - (answer.acceptTime?.seconds ?? 0)).toBe(3_600)
  })

  test('fails direct messages as unavailable, before the deadline of the call', async () => {
    const connection = await start()
    const call = connection
      .client(PublishServiceDefinition)
      .publish(
        { message: { target: { $case: 'deviceId', value: 'd' } }, mode: PublishMode.DIRECT },
        { deadlineMs: directDeadlineMs },
      )
    expect(await failureOf(call)).toMatchObject({ status: Status.UNAVAILABLE, reason: 'REGISTRY_UNAVAILABLE' })
  })

  test('is not ready, and says so', async () => {
    const health = (await start()).client(HealthDefinition)
    expect((await health.check({ service: '' }, { deadlineMs: 10_000 })).status).not.toBe(1)
    await expect
      .poll(async () => (await health.check({ service: 'push.queue' }, { deadlineMs: 10_000 })).status, { timeout: 10_000 })
      .toBe(1)
  })
})

test('without its queue a router refuses queued messages and goes on with direct ones', async () => {
  const connection = await start({ ROUTER_KAFKA_BROKERS: nobody })
  const publish = connection.client(PublishServiceDefinition)
  const message = { target: { $case: 'deviceId' as const, value: 'd' } }
  expect(await failureOf(publish.publish({ message }, { deadlineMs: 10_000 }))).toMatchObject({
    status: Status.UNAVAILABLE,
    reason: 'QUEUE_UNAVAILABLE',
  })
  expect(await failureOf(publish.publish({ message, mode: PublishMode.DIRECT }, { deadlineMs: directDeadlineMs }))).toMatchObject(
    {
      reason: 'REGISTRY_UNAVAILABLE',
    },
  )
})

test('a bad message is refused over the wire with reason and every field', async () => {
  const publish = (await start()).client(PublishServiceDefinition)
  const failure = await failureOf(
    publish.publish({ message: { name: 'a/b', payload: Buffer.from('{') } }, { deadlineMs: 10_000 }),
  )
  expect(failure).toMatchObject({ status: Status.INVALID_ARGUMENT, reason: 'TARGET_MISSING' })
  expect(failure.violations.map(({ field }) => field)).toEqual(['message.target', 'message.name', 'message.payload'])
})

test('a mode that does not exist is refused', async () => {
  const publish = (await start()).client(PublishServiceDefinition)
  const call = publish.publish(
    { message: { target: { $case: 'deviceId', value: 'd' } }, mode: 9 as PublishMode },
    { deadlineMs: 10_000 },
  )
  expect(await failureOf(call)).toMatchObject({ status: Status.INVALID_ARGUMENT, reason: 'INVALID_REQUEST' })
})

test('a malformed device id is refused by every service that takes one', async () => {
  const connection = await start()
  const calls = [
    () => connection.client(DeviceServiceDefinition).listAccountDevices({ accountId: '' }, { deadlineMs: 10_000 }),
    () =>
      connection.client(DeviceServiceDefinition).listAccountDevices({ accountId: 'a', pageSize: 1_001 }, { deadlineMs: 10_000 }),
    () => connection.client(DeviceServiceDefinition).getDevice({ deviceId: 'a b' }, { deadlineMs: 10_000 }),
    () => connection.client(OperationsServiceDefinition).disconnectDevice({ deviceId: '', reason: '' }, { deadlineMs: 10_000 }),
  ]
  for (const call of calls) {
    expect(await failureOf(call())).toMatchObject({ status: Status.INVALID_ARGUMENT, reason: 'INVALID_REQUEST' })
  }
})

test('drains of an edge that nobody knows are told so', async () => {
  const operations = (await start()).client(OperationsServiceDefinition)
  const bound = { deadlineMs: 10_000 }
  expect(await failureOf(operations.drainEdge({}, bound))).toMatchObject({ reason: 'INVALID_REQUEST' })
})

describe('what must be on record before it is done', () => {
  const recovery = {
    target: { $case: 'deviceId' as const, value: 'tv' },
    messageClass: MessageClass.RECOVERY,
    name: 'reboot',
    payload: Buffer.from('{"secret":"s3cret"}'),
  }
  /** The records in the queue's file, read when the router has gone. */
  async function recorded(): Promise<AuditRecord[]> {
    await stop()
    stop = async () => undefined
    const queue = openEmbeddedQueue({
      path: join(folder, 'queue.sqlite'),
      log: silentLog,
      metrics: createMetrics(),
      clock: systemClock,
    })
    const records = queue.auditRecords().map(({ value }) => AuditRecord.decode(value))
    await queue.close()
    return records
  }

  test('is recovery, with a digest in place of the payload, and what operators do', async () => {
    const connection = await start()
    const bound = { deadlineMs: 10_000 }
    const publish = connection.client(PublishServiceDefinition)
    const operations = connection.client(OperationsServiceDefinition)
    const { messageId } = await publish.publish({ message: recovery }, bound)
    await publish.publish({ message: { ...recovery, messageClass: MessageClass.DIAGNOSTIC } }, bound)
    await operations.listDeadLetters({}, bound)
    await failureOf(operations.replayDeadLetters({ positions: ['0:1'] }, bound))
    const records = await recorded()
    expect(records).toMatchObject([
      {
        principal: 'anonymous',
        action: 'push.v1.PublishService/Publish',
        target: 'device/tv',
        messageId,
        name: 'reboot',
        allowed: true,
        payloadDigest: createHash('sha256').update(recovery.payload).digest(),
      },
      { action: 'push.v1.OperationsService/ReplayDeadLetters', target: 'dead-letters', allowed: true },
    ])
    expect(JSON.stringify(records)).not.toContain('s3cret')
    expect(Buffer.concat(records.map((record) => AuditRecord.encode(record).finish())).toString()).not.toContain('s3cret')
  })

  test('is not done where it cannot be recorded, with Kafka away and no journal; with one, recovery goes on', async () => {
    const bound = { deadlineMs: directDeadlineMs }
    const unreachable = { ROUTER_KAFKA_BROKERS: nobody }
    const direct = { message: recovery, mode: PublishMode.DIRECT }
    const without = await start(unreachable)
    const failure = await failureOf(without.client(PublishServiceDefinition).publish(direct, bound))
    expect(failure).toMatchObject({ status: Status.UNAVAILABLE, reason: 'AUDIT_UNAVAILABLE' })
    expect(
      await failureOf(without.client(OperationsServiceDefinition).disconnectDevice({ deviceId: 'tv' }, bound)),
    ).toMatchObject({ reason: 'AUDIT_UNAVAILABLE' })
    await stop()

    const journal = join(folder, 'audit.sqlite')
    const withOne = await start({ ...unreachable, ROUTER_AUDIT_PATH: journal })
    // On record, it goes as far as it can without a registry.
    expect(await failureOf(withOne.client(PublishServiceDefinition).publish(direct, bound))).toMatchObject({
      reason: 'REGISTRY_UNAVAILABLE',
    })
    await stop()
    stop = async () => undefined
    const file = openAuditJournal(journal)
    expect(file.oldest(10).map(({ value }) => AuditRecord.decode(value).target)).toEqual(['device/tv'])
    file.close()
  })
})

test('dead letters are there to be asked for', async () => {
  const operations = (await start()).client(OperationsServiceDefinition)
  const bound = { deadlineMs: 10_000 }
  expect(await operations.listDeadLetters({}, bound)).toMatchObject({ deadLetters: [], nextPageToken: '' })
  const unknown = { status: Status.NOT_FOUND, reason: 'DEAD_LETTER_UNKNOWN', metadata: { position: '0:1' } }
  expect(await failureOf(operations.getDeadLetter({ position: '0:1' }, bound))).toMatchObject(unknown)
  expect(await failureOf(operations.replayDeadLetters({ positions: ['0:1'] }, bound))).toMatchObject(unknown)
  expect(await operations.purgeDeadLetters({ before: { seconds: 1, nanos: 0 } }, bound)).toMatchObject({ purgedCount: 0 })
})

test('too much news in one report is refused whole', async () => {
  const uplink = (await start()).client(UplinkServiceDefinition)
  const items = Array.from({ length: 257 }, () => ({}))
  expect(await failureOf(uplink.report({ items }, { deadlineMs: 10_000 }))).toMatchObject({ reason: 'INVALID_REQUEST' })
})

test('every wrong setting is told at once, by the name that was typed', () => {
  expect(() =>
    readRouterConfig({ ROUTER_LISTEN_ADDRESS: '0.0.0.0:7400', ROUTER_HOLD_TIME_MS: '60s', ROUTER_QUEUE_PATH: 'q' }),
  ).toThrow(/ROUTER_HOLD_TIME_MS is "60s"/)
  expect(() => readRouterConfig({ ROUTER_LISTEN_ADDRESS: '0.0.0.0:7400', ROUTER_QUEUE_PATH: 'q' })).toThrow(/ROUTER_INSECURE/)
  expect(() => readRouterConfig({})).toThrow(/ROUTER_KAFKA_BROKERS/)
})
