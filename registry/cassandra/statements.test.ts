import { errors, policies, types } from 'cassandra-driver'
import { beforeEach, expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { countDriverEvents, driverOptions } from './client.ts'
import { createCassandraEdgeStore } from './edge-store.ts'
import { createCassandraInboxStore } from './inbox-store.ts'
import { createCassandraReceiptStore } from './receipt-store.ts'
import { createCassandraSessionStore } from './session-store.ts'
import { type CqlValue, createStatementRunner, type Statement } from './statements.ts'

type Execute = Parameters<typeof createStatementRunner>[0]['execute']

let executed: { query: string; params: unknown; options: unknown }[]
let failure: unknown
const client = {
  execute: ((query: string, params: unknown, options: unknown) => {
    executed.push({ query, params, options })
    return failure === undefined ? Promise.resolve({ rows: [] }) : Promise.reject(failure)
  }) as unknown as Execute,
}
beforeEach(() => {
  executed = []
  failure = undefined
})

const statement: Statement = { query: 'INSERT INTO t (a) VALUES (?) USING TIMESTAMP ? AND TTL ?', repeatable: true }

test.each([
  ['a TTL that is undefined', ['a', 1n, undefined]],
  ['a timestamp that is null', ['a', null, 1]],
  ['a TTL that is no number', ['a', 1n, Number.NaN]],
  ['a number that is not whole', ['a', 1n, 1.5]],
  ['a value too few', ['a', 1n]],
  ['a value too many', ['a', 1n, 1, 1]],
])('%s is refused before anything is sent', async (_what, values) => {
  const run = createStatementRunner(client, createMetrics())
  await expect(run(statement, values as CqlValue[])).rejects.toThrow(TypeError)
  expect(executed).toEqual([])
})

test('statements are prepared, and repeatable only where a repeat changes nothing', async () => {
  const run = createStatementRunner(client, createMetrics())
  const sessions = createCassandraSessionStore(run, 'push')
  const edges = createCassandraEdgeStore(run, 'push')
  const row = {
    deviceId: 'd',
    epoch: 5,
    sessionId: 's',
    edgeId: 'e',
    edgeAddress: 'e:1',
    accountId: '',
    protocol: 'p',
    connectedTime: 1,
  }
  await sessions.insert(row, 60)
  await sessions.delete(row)
  await sessions.read('d', 3)
  await edges.readAll()
  expect(executed.every(({ options }) => JSON.stringify(options) === '{"prepare":true,"isIdempotent":true}')).toBe(true)
  expect(executed[0]?.params).toEqual(['d', 5n, 's', 'e', 'e:1', '', 'p', 1n, 5n, 60])
  expect(executed[1]?.params).toEqual([5n, 'd', 5n, 's'])
  executed = []
  const inbox = createCassandraInboxStore(run, 'push')
  const receipts = createCassandraReceiptStore(run, 'push')
  const message = Buffer.from([1])
  const summary = { messageId: 'm', acceptTime: 7, expireTime: 9, priority: 2, recovery: false, collapseKey: 'k', size: 1 }
  await inbox.insert('d', { ...summary, message }, 60)
  await inbox.delete({ deviceId: 'd', messageId: 'm', acceptTime: 7 })
  await inbox.writeHint('d', 9, 61)
  await inbox.list('d')
  await inbox.read('d')
  await inbox.readMessage('d', 'm')
  await receipts.insert({ messageId: 'm', deviceId: 'd', state: 9, time: 8, receipt: message }, 62)
  await receipts.read('m', undefined, 10)
  await receipts.read('m', { messageId: 'm', deviceId: 'd', state: 9 }, 10)
  expect(executed.every(({ options }) => JSON.stringify(options) === '{"prepare":true,"isIdempotent":true}')).toBe(true)
  expect(executed.map(({ params }) => params)).toEqual([
    ['d', 'm', 2, false, 7n, 9n, 'k', 1, message, 7n, 60],
    [7n, 'd', 'm'],
    [9n, 61, 9n, 'd'],
    ['d', 1001],
    ['d', 1001],
    ['d', 'm'],
    ['m', 'd', 9, message, -8n, 62],
    ['m', '', 0, 10],
    ['m', 'd', 9, 10],
  ])
  executed = []
  await sessions.writeAccountDevice('a', 'd', 86_400_000_001)
  await sessions.readAccountDevice('a', 'd')
  await sessions.deleteAccountDevice('a', 'd', 7)
  expect(executed.map(({ params }) => params)).toEqual([
    ['a', 'd', 1, 86_400_000_001n],
    ['a', 'd'],
    [7n, 'a', 'd'],
  ])
  expect(executed.every(({ options }) => JSON.stringify(options) === '{"prepare":true,"isIdempotent":true}')).toBe(true)
  executed = []
  // Stamped by the server: a copy that is late would land on top of what came after it.
  const edge = { edgeId: 'e', name: 'e', address: 'e:1', zone: '', connectionCount: 1, connectionLimit: 2, draining: false }
  await edges.writeLease(edge, 30)
  expect(executed.map(({ options }) => options)).toEqual([{ prepare: true, isIdempotent: false }])
})

test('failures are counted by what went wrong', async () => {
  const metrics = createMetrics()
  const run = createStatementRunner(client, metrics)
  failure = new errors.NoHostAvailableError({ a: new errors.OperationTimedOutError('slow') })
  await expect(run(statement, ['a', 1n, 1])).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  expect(await metricValue(metrics, 'push_registry_cassandra_failures_total', { failure: 'timeout' })).toBe(1)
})

test('the driver asks a local quorum, a second host soon, and looks again for lost hosts within ten seconds', () => {
  const settings = {
    contactPoints: ['10.0.0.1', '10.0.0.2:9043'],
    port: 9042,
    localDataCenter: 'dc1',
    keyspace: 'push',
    createKeyspace: false,
    replicationFactor: 3,
    user: 'registry',
    password: 'word',
    readTimeoutMs: 6000,
    connectTimeoutMs: 1000,
  }
  const options = driverOptions(settings)
  expect(options).toMatchObject({
    contactPoints: ['10.0.0.1:9042', '10.0.0.2:9043'],
    credentials: { username: 'registry', password: 'word' },
    queryOptions: { consistency: types.consistencies.localQuorum },
    socketOptions: { readTimeout: 6000 },
    encoding: { useBigIntAsLong: true, useUndefinedAsUnset: false },
    policies: { timestampGeneration: null },
  })
  expect(options.policies?.speculativeExecution).toBeInstanceOf(policies.speculativeExecution.ConstantSpeculativeExecutionPolicy)
  expect(options.policies?.speculativeExecution?.getOptions()).toEqual(
    new Map<string, number>([
      ['delay', 50],
      ['maxSpeculativeExecutions', 2],
    ]),
  )
  const schedule = options.policies?.reconnection?.newSchedule()
  const delays = Array.from({ length: 12 }, () => Number(schedule?.next().value))
  expect(Math.min(...delays)).toBeLessThanOrEqual(500)
  expect(Math.max(...delays)).toBeLessThanOrEqual(11_500)
  expect(delays.at(-1)).toBeGreaterThan(8_000)
  expect(driverOptions({ ...settings, user: undefined, password: undefined })).not.toHaveProperty('credentials')
})

test('second hosts asked, retries and lost connections are counted', async () => {
  const metrics = createMetrics()
  const driver = countDriverEvents(metrics)
  driver.onSpeculativeExecution()
  driver.onSpeculativeExecution()
  driver.onConnectionError(new Error('lost'))
  driver.onUnavailableRetry(new Error('retried'))
  driver.onReadTimeoutRetry(new Error('retried'))
  const count = (event: string) => metricValue(metrics, 'push_registry_cassandra_driver_events_total', { event })
  expect(await count('speculative_execution')).toBe(2)
  expect(await count('connection_error')).toBe(1)
  expect(await count('retry')).toBe(2)
})
