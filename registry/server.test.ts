import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type InboxEntry, InboxServiceDefinition } from '../gen/push/internal/v1/inbox.ts'
import type { QueuedMessage, Receipt } from '../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../gen/push/internal/v1/receipts.ts'
import { EdgeLeaseState, RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { MessageState } from '../gen/push/v1/message.ts'
import { type Clock, systemClock } from '../service-kit/clock.ts'
import { type Closers, createClosers } from '../service-kit/closers.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { readRegistryConfig } from './config.ts'
import { receiptOf } from './receipts.suite.ts'
import { startRegistry } from './server.ts'
import { renewRequest } from './testing/test-edges.ts'
import { queued } from './testing/test-inbox.ts'
import { fullId, registerRequest } from './testing/test-registry.ts'

let folder: string
let closers: Closers
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'registry-server-'))
  closers = createClosers(silentLog, systemClock)
})
afterEach(async () => {
  expect((await closers.close({ graceMs: 30_000 })).late).toEqual([])
  rmSync(folder, { recursive: true })
})

const env = () => ({
  REGISTRY_LISTEN_ADDRESS: '127.0.0.1:0',
  REGISTRY_STORE: 'sqlite',
  REGISTRY_SQLITE_PATH: join(folder, 'registry.sqlite'),
})

async function start(
  clock: Clock = systemClock,
  log = recordingLog(),
): Promise<{ address: string; connection: GrpcConnection; log: typeof log }> {
  const config = readRegistryConfig(env())
  const { address } = await startRegistry({ config, clock, random: systemRandom, log, metrics: createMetrics(), closers })
  const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  closers.add('connection', () => connection.close())
  return { address, connection, log }
}

/** A message as a router stores it, by this machine's clock. */
function waiting(): QueuedMessage {
  const acceptTime = systemClock.nowMicros()
  const times = { acceptTime, expireTime: acceptTime + 60_000_000 }
  return { ...queued({ id: '019b1d0e-0000-7000-8000-000000000001' }, 'd1'), ...times }
}

/** SERVING in grpc.health.v1. */
const servingStatus = 1

const failureOf = (call: Promise<unknown>) =>
  call.then(
    () => Promise.reject(new Error('the call went well')),
    (error) => callErrorOf(error),
  )

test('edges and routers find each other through a registry on nothing but a file', async () => {
  const { address, connection, log } = await start()
  expect(log.withPhrase('registry ready')).toMatchObject([{ facts: { address, store: 'sqlite' } }])
  const registry = connection.client(RegistryServiceDefinition)

  const renewed = await registry.renewEdge(renewRequest('edge-a-12345678', { ttl: { seconds: 300, nanos: 0 } }), {
    deadlineMs: 10_000,
  })
  expect(renewed.lapsed).toBe(false)
  expect(Math.abs(renewed.registryTime - Date.now() * 1000)).toBeLessThan(60_000_000)

  const request = registerRequest([
    { deviceId: 'd1', sessionId: 's1', accountId: 'acc-1' },
    { deviceId: 'd2', sessionId: 's1' },
  ])
  const { results } = await registry.register(request, { deadlineMs: 10_000 })
  expect(results.map(({ result }) => result?.$case)).toEqual(['registered', 'registered'])

  const { devices } = await registry.lookup({ deviceIds: ['d2', 'd1', 'd3'] }, { deadlineMs: 10_000 })
  expect(devices).toMatchObject([
    { deviceId: 'd2', routes: [{ row: { sessionId: fullId('s1'), accountId: '' }, edgeState: EdgeLeaseState.LIVE }] },
    { deviceId: 'd1', routes: [{ row: { edgeId: 'edge-a-12345678', accountId: 'acc-1', protocol: 'push.v1.json' } }] },
    { deviceId: 'd3', routes: [], more: false, inboxUntil: 0 },
  ])
  await registry.unregister({ sessions: [{ deviceId: 'd1', sessionId: fullId('s1'), epoch: 0 }] }, { deadlineMs: 10_000 })
  expect((await registry.lookup({ deviceIds: ['d1'] }, { deadlineMs: 10_000 })).devices[0]?.routes).toEqual([])

  const { edges } = await registry.listEdges({}, { deadlineMs: 10_000 })
  expect(edges).toMatchObject([{ edgeId: 'edge-a-12345678', state: EdgeLeaseState.LIVE, connectionCount: 3 }])
})

test('routers keep messages and receipts in the same file, and the devices see the hint', async () => {
  const { connection } = await start()
  const inbox = connection.client(InboxServiceDefinition)
  const receipts = connection.client(ReceiptServiceDefinition)
  const registry = connection.client(RegistryServiceDefinition)
  const deadlineMs = 10_000
  const message = waiting()
  const { results } = await inbox.store({ entries: [{ deviceId: 'd1', message }] }, { deadlineMs })
  expect(results).toMatchObject([{ result: { $case: 'stored' }, evictions: [] }])
  expect((await inbox.count({ deviceId: 'd1' }, { deadlineMs })).entryCount).toBe(1)
  expect(await inbox.read({ deviceId: 'd1' }, { deadlineMs })).toMatchObject({
    entries: [{ deviceId: 'd1', message }],
    replaced: [],
  })
  const { devices } = await registry.lookup({ deviceIds: ['d1'] }, { deadlineMs })
  expect(devices).toMatchObject([{ routes: [], inboxUntil: message.expireTime }])
  const { messageId, acceptTime, expireTime } = message
  await inbox.remove({ entries: [{ deviceId: 'd1', messageId, acceptTime }] }, { deadlineMs })
  expect((await inbox.count({ deviceId: 'd1' }, { deadlineMs })).entryCount).toBe(0)
  const receipt = receiptOf(messageId, MessageState.STORED, { time: acceptTime, expireTime })
  await receipts.record({ receipts: [receipt] }, { deadlineMs })
  expect((await receipts.get({ messageId }, { deadlineMs })).receipts).toEqual([receipt])
})

test('an account tells the devices that have logged in to it', async () => {
  const registry = (await start()).connection.client(RegistryServiceDefinition)
  const deadlineMs = 10_000
  const devices = ['d1', 'd2', 'd3'].map((deviceId) => ({ deviceId, sessionId: 's1', accountId: 'acc-1' }))
  await registry.register(registerRequest([...devices, { deviceId: 'd4', sessionId: 's1' }]), { deadlineMs })
  const first = await registry.lookupAccount({ accountId: 'acc-1', pageSize: 2 }, { deadlineMs })
  expect(first.deviceIds).toEqual(['d1', 'd2'])
  const pageToken = first.nextPageToken
  expect(await registry.lookupAccount({ accountId: 'acc-1', pageSize: 2, pageToken }, { deadlineMs })).toEqual({
    deviceIds: ['d3'],
    nextPageToken: '',
  })
  expect((await registry.lookupAccount({ accountId: 'acc-2' }, { deadlineMs })).deviceIds).toEqual([])
})

test('a watch gets the picture at once and its changes, and is told when the registry stops', async () => {
  const { connection } = await start()
  const registry = connection.client(RegistryServiceDefinition)
  const watch = registry.watchEdges({})[Symbol.asyncIterator]()
  expect((await watch.next()).value?.edges).toEqual([])
  const changed = watch.next()
  await registry.renewEdge(renewRequest('edge-a-12345678'), { deadlineMs: 10_000 })
  expect((await changed).value?.edges).toMatchObject([{ edgeId: 'edge-a-12345678' }])
  const ended = failureOf(watch.next())
  const closed = closers.close({ graceMs: 30_000 })
  expect(await ended).toMatchObject({ reason: 'DRAINING' })
  expect((await closed).late).toEqual([])
})

test('health names the registry and the whole, and says serving', async () => {
  const { connection } = await start()
  const health = connection.client(HealthDefinition)
  for (const service of ['', RegistryServiceDefinition.fullName]) {
    expect((await health.check({ service }, { deadlineMs: 10_000 })).status).toBe(servingStatus)
  }
})

test('what a registry has kept is there after a restart', async () => {
  const first = await start()
  const registry = first.connection.client(RegistryServiceDefinition)
  await registry.register(registerRequest([{ deviceId: 'd1', sessionId: 's1' }]), { deadlineMs: 10_000 })
  await closers.close({ graceMs: 30_000 })
  closers = createClosers(silentLog, systemClock)
  const second = await start()
  const { devices } = await second.connection
    .client(RegistryServiceDefinition)
    .lookup({ deviceIds: ['d1'] }, { deadlineMs: 10_000 })
  expect(devices[0]?.routes).toMatchObject([{ row: { sessionId: fullId('s1') }, edgeState: EdgeLeaseState.SUSPECT }])
})

test('a second registry on the same file is refused', async () => {
  await start()
  await expect(start()).rejects.toThrow(/in use by another/)
})

describe('bad requests name their fields', () => {
  const fieldsOf = async (call: Promise<unknown>) => {
    const { reason, violations } = await failureOf(call)
    expect(reason).toBe('INVALID_REQUEST')
    return violations.map(({ field }) => field)
  }
  const thousandAndOne = <T>(item: (n: number) => T) => Array.from({ length: 1001 }, (_, n) => item(n))
  const deadlineMs = 10_000

  test('in Register', async () => {
    const registry = (await start()).connection.client(RegistryServiceDefinition)
    const good = registerRequest([{ deviceId: 'd1', sessionId: 's1' }])
    const session = good.sessions[0]
    if (session === undefined) throw new Error('no session')
    const bad = (change: Partial<typeof session>) =>
      registry.register({ ...good, sessions: [{ ...session, ...change }] }, { deadlineMs })
    expect(await fieldsOf(registry.register({ ...good, edgeId: 'edge', edgeAddress: 'nowhere' }, { deadlineMs }))).toEqual([
      'edge_id',
      'edge_address',
    ])
    expect(await fieldsOf(bad({ deviceId: 'no spaces' }))).toEqual(['sessions[0].device_id'])
    expect(await fieldsOf(bad({ deviceId: 'x'.repeat(129) }))).toEqual(['sessions[0].device_id'])
    expect(await fieldsOf(bad({ sessionId: 'short' }))).toEqual(['sessions[0].session_id'])
    expect(await fieldsOf(bad({ accountId: 'a/b' }))).toEqual(['sessions[0].account_id'])
    expect(await fieldsOf(bad({ protocol: '' }))).toEqual(['sessions[0].protocol'])
    expect(await fieldsOf(bad({ connectedTime: -1, lastEpoch: -1 }))).toEqual([
      'sessions[0].connected_time',
      'sessions[0].last_epoch',
    ])
    for (const rowTtl of [
      undefined,
      { seconds: 0, nanos: 999_000_000 },
      { seconds: 30 * 86_400, nanos: 1_000_000 },
      { seconds: 1, nanos: -1 },
    ]) {
      expect(await fieldsOf(bad({ rowTtl }))).toEqual(['sessions[0].row_ttl'])
    }
    expect(
      await fieldsOf(
        registry.register({ ...good, sessions: [session, { ...session, sessionId: fullId('s2') }] }, { deadlineMs }),
      ),
    ).toEqual(['sessions[1].device_id'])
    const many = thousandAndOne((n) => ({ ...session, deviceId: `d${n}` }))
    expect(await fieldsOf(registry.register({ ...good, sessions: many }, { deadlineMs }))).toEqual(['sessions'])
    expect((await registry.lookup({ deviceIds: ['d1'] }, { deadlineMs })).devices[0]?.routes).toEqual([])
  })

  test('in Unregister and Lookup', async () => {
    const registry = (await start()).connection.client(RegistryServiceDefinition)
    const key = { deviceId: 'd1', sessionId: fullId('s1'), epoch: 1 }
    const unregister = (change: Partial<typeof key>) => registry.unregister({ sessions: [{ ...key, ...change }] }, { deadlineMs })
    expect(await fieldsOf(unregister({ deviceId: '' }))).toEqual(['sessions[0].device_id'])
    expect(await fieldsOf(unregister({ sessionId: '' }))).toEqual(['sessions[0].session_id'])
    expect(await fieldsOf(unregister({ epoch: -1 }))).toEqual(['sessions[0].epoch'])
    expect(await fieldsOf(registry.unregister({ sessions: thousandAndOne(() => key) }, { deadlineMs }))).toEqual(['sessions'])
    expect(await fieldsOf(registry.lookup({ deviceIds: ['d1', 'd 2', 'd1'] }, { deadlineMs }))).toEqual([
      'device_ids[1]',
      'device_ids[2]',
    ])
    expect(await fieldsOf(registry.lookup({ deviceIds: thousandAndOne((n) => `d${n}`) }, { deadlineMs }))).toEqual(['device_ids'])
  })

  test('in LookupAccount', async () => {
    const registry = (await start()).connection.client(RegistryServiceDefinition)
    expect(await fieldsOf(registry.lookupAccount({ accountId: '' }, { deadlineMs }))).toEqual(['account_id'])
    expect(await fieldsOf(registry.lookupAccount({ accountId: 'a', pageSize: 1001 }, { deadlineMs }))).toEqual(['page_size'])
    expect(await fieldsOf(registry.lookupAccount({ accountId: 'a', pageToken: 'IA' }, { deadlineMs }))).toEqual(['page_token'])
  })

  test('in RenewEdge and ListEdges', async () => {
    const registry = (await start()).connection.client(RegistryServiceDefinition)
    const renew = (change: Parameters<typeof renewRequest>[1]) =>
      registry.renewEdge(renewRequest('edge-a-12345678', change), { deadlineMs })
    expect(await fieldsOf(renew({ name: 'Edge' }))).toEqual(['name', 'edge_id'])
    expect(await fieldsOf(renew({ name: 'edge-b' }))).toEqual(['edge_id'])
    expect(await fieldsOf(renew({ edgeId: 'edge-a' }))).toEqual(['edge_id', 'edge_id'])
    expect(await fieldsOf(renew({ address: '127.0.0.1' }))).toEqual(['address'])
    expect(await fieldsOf(renew({ zone: 'a zone' }))).toEqual(['zone'])
    expect(await fieldsOf(renew({ connectionCount: -1, connectionLimit: -1 }))).toEqual(['connection_count', 'connection_limit'])
    for (const ttl of [
      { seconds: 0, nanos: 0 },
      { seconds: 301, nanos: 0 },
    ])
      expect(await fieldsOf(renew({ ttl }))).toEqual(['ttl'])
    expect(await fieldsOf(registry.listEdges({ pageSize: 1001 }, { deadlineMs }))).toEqual(['page_size'])
    expect(await fieldsOf(registry.listEdges({ pageSize: -1 }, { deadlineMs }))).toEqual(['page_size'])
    expect(await fieldsOf(registry.listEdges({ pageToken: 'nonsense' }, { deadlineMs }))).toEqual(['page_token'])
  })

  test('in Store, Remove, Read and Count, and nothing is stored', async () => {
    const inbox = (await start()).connection.client(InboxServiceDefinition)
    const good = { deviceId: 'd1', message: waiting() }
    const store = (change: Partial<InboxEntry>) => inbox.store({ entries: [{ ...good, ...change }] }, { deadlineMs })
    const field = 'entries[0].message'
    expect(await fieldsOf(store({ deviceId: 'no spaces' }))).toEqual(['entries[0].device_id'])
    expect(await fieldsOf(store({ message: undefined }))).toEqual([field])
    expect(await fieldsOf(store({ message: { ...good.message, message: undefined } }))).toEqual([field])
    expect(await fieldsOf(store({ message: { ...good.message, messageId: '' } }))).toEqual([`${field}.message_id`])
    const farOff = systemClock.nowMicros() + 32 * 86_400_000_000
    for (const time of [0, -1, farOff]) {
      expect(await fieldsOf(store({ message: { ...good.message, acceptTime: time } }))).toEqual([`${field}.accept_time`])
      expect(await fieldsOf(store({ message: { ...good.message, expireTime: time } }))).toEqual([`${field}.expire_time`])
    }
    const content = good.message.message
    if (content === undefined) throw new Error('no content')
    const tooLong = { ...good.message, message: { ...content, payload: Buffer.alloc(65_537) } }
    expect(await fieldsOf(store({ message: tooLong }))).toEqual([`${field}.message.payload`])
    expect(await fieldsOf(inbox.store({ entries: [good, { ...good, deviceId: '' }] }, { deadlineMs }))).toEqual([
      'entries[1].device_id',
    ])
    expect(await fieldsOf(inbox.store({ entries: thousandAndOne(() => good) }, { deadlineMs }))).toEqual(['entries'])
    expect((await inbox.count({ deviceId: 'd1' }, { deadlineMs })).entryCount).toBe(0)
    const key = { deviceId: 'd1', messageId: 'm1', acceptTime: 1 }
    const remove = (change: Partial<typeof key>) => inbox.remove({ entries: [{ ...key, ...change }] }, { deadlineMs })
    expect(await fieldsOf(remove({ deviceId: '', messageId: 'a/b', acceptTime: 0 }))).toEqual([
      'entries[0].device_id',
      'entries[0].message_id',
      'entries[0].accept_time',
    ])
    expect(await fieldsOf(inbox.remove({ entries: thousandAndOne(() => key) }, { deadlineMs }))).toEqual(['entries'])
    expect(await fieldsOf(inbox.read({ deviceId: 'a b' }, { deadlineMs }))).toEqual(['device_id'])
    expect(await fieldsOf(inbox.count({ deviceId: '' }, { deadlineMs }))).toEqual(['device_id'])
  })

  test('in Record and Get, and nothing is recorded', async () => {
    const receipts = (await start()).connection.client(ReceiptServiceDefinition)
    const { acceptTime, expireTime } = waiting()
    const good = receiptOf('m1', MessageState.ACKNOWLEDGED, { time: acceptTime, expireTime })
    const record = (change: Partial<Receipt>) => receipts.record({ receipts: [{ ...good, ...change }] }, { deadlineMs })
    expect(await fieldsOf(record({ messageId: 'a/b' }))).toEqual(['receipts[0].message_id'])
    expect(await fieldsOf(record({ deviceId: '' }))).toEqual(['receipts[0].device_id'])
    expect(await fieldsOf(record({ outcome: undefined }))).toEqual(['receipts[0].outcome.state'])
    for (const time of [0, systemClock.nowMicros() + 32 * 86_400_000_000]) {
      expect(await fieldsOf(record({ time }))).toEqual(['receipts[0].time'])
      expect(await fieldsOf(record({ expireTime: time }))).toEqual(['receipts[0].expire_time'])
    }
    for (const resultDeadline of [-1, systemClock.nowMicros() + 33 * 86_400_000_000]) {
      expect(await fieldsOf(record({ resultDeadline }))).toEqual(['receipts[0].result_deadline'])
    }
    expect(await fieldsOf(record({ result: Buffer.alloc(49_153) }))).toEqual(['receipts[0].result'])
    expect(await fieldsOf(receipts.record({ receipts: thousandAndOne(() => good) }, { deadlineMs }))).toEqual(['receipts'])
    expect(await fieldsOf(receipts.get({ messageId: '' }, { deadlineMs }))).toEqual(['message_id'])
    expect((await receipts.get({ messageId: 'm1' }, { deadlineMs })).receipts).toEqual([])
  })
})
