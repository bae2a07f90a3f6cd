import { HealthDefinition } from 'nice-grpc-server-health'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { RegistryServiceDefinition } from '../../gen/push/internal/v1/registry.ts'
import { type Clock, shiftedClock, systemClock } from '../../service-kit/clock.ts'
import { type Closers, createClosers } from '../../service-kit/closers.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { readRegistryConfig } from '../config.ts'
import { startRegistry } from '../server.ts'
import { fullId, registerRequest } from '../testing/test-registry.ts'
import { dropKeyspace, freshSettings, openClient } from './test-keyspace.ts'

/** NOT_SERVING in grpc.health.v1. */
const notServingStatus = 2

let closers: Closers
let settings: ReturnType<typeof freshSettings>
beforeEach(() => {
  closers = createClosers(silentLog, systemClock)
  settings = freshSettings()
})
afterEach(async () => {
  expect((await closers.close({ graceMs: 10_000 })).late).toEqual([])
  const client = await openClient(settings)
  await dropKeyspace(client, settings)
  await client.shutdown()
})

async function start(
  clock: Clock = systemClock,
  change: Record<string, string> = {},
): Promise<{ connection: GrpcConnection; log: ReturnType<typeof recordingLog> }> {
  const log = recordingLog()
  const config = readRegistryConfig({
    REGISTRY_LISTEN_ADDRESS: '127.0.0.1:0',
    REGISTRY_CASSANDRA_CONTACT_POINTS: settings.contactPoints.join(','),
    REGISTRY_CASSANDRA_PORT: String(settings.port),
    REGISTRY_CASSANDRA_LOCAL_DATA_CENTER: settings.localDataCenter,
    REGISTRY_CASSANDRA_KEYSPACE: settings.keyspace,
    REGISTRY_CASSANDRA_CREATE_KEYSPACE: 'true',
    REGISTRY_CASSANDRA_REPLICATION_FACTOR: '1',
    ...change,
  })
  const { address } = await startRegistry({ config, clock, random: systemRandom, log, metrics: createMetrics(), closers })
  const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  closers.add('connection', () => connection.close())
  return { connection, log }
}

test('two registries that start at once on an empty cluster, clocks 5 s apart, serve one picture', async () => {
  const [one, two] = await Promise.all([start(), start(shiftedClock(systemClock, 5_000))])
  const [a, b] = [one.connection.client(RegistryServiceDefinition), two.connection.client(RegistryServiceDefinition)]
  await Promise.all([one.connection.waitReady(5_000), two.connection.waitReady(5_000)])
  const deadlineMs = 5_000
  const first = await b.register(registerRequest([{ deviceId: 'd1', sessionId: 's1', accountId: 'acc' }]), { deadlineMs })
  const second = await a.register(registerRequest([{ deviceId: 'd1', sessionId: 's2' }]), { deadlineMs })
  expect(first.results[0]?.result?.$case).toBe('registered')
  expect(second.results[0]?.result).toMatchObject({
    $case: 'registered',
    value: { replacedSessions: [{ sessionId: fullId('s1'), accountId: 'acc' }] },
  })
  for (const registry of [a, b]) {
    const { devices } = await registry.lookup({ deviceIds: ['d1'] }, { deadlineMs })
    expect(devices[0]?.routes.map(({ row }) => row?.sessionId)).toEqual([fullId('s2'), fullId('s1')])
  }
})

test('a registry whose clock is further than 10 s from the cluster is not ready', async () => {
  const { connection, log } = await start(shiftedClock(systemClock, 15_000))
  expect(log.withPhrase('clock is too far from the store; not ready')).toHaveLength(1)
  const health = connection.client(HealthDefinition)
  for (const service of ['', RegistryServiceDefinition.fullName]) {
    expect((await health.check({ service }, { deadlineMs: 5_000 })).status).toBe(notServingStatus)
  }
})

test('a call whose deadline passes while it waits for the store ends as such', async () => {
  const { connection } = await start()
  const registry = connection.client(RegistryServiceDefinition)
  const sessions = Array.from({ length: 1000 }, (_, n) => ({ deviceId: `d${n}`, sessionId: 's1' }))
  const failure = await registry.register(registerRequest(sessions), { deadlineMs: 20 }).catch(callErrorOf)
  expect(failure).toMatchObject({ status: 4 })
})

test('a cluster that does not answer is told by its address', async () => {
  const failed = start(systemClock, {
    REGISTRY_CASSANDRA_CONTACT_POINTS: '127.0.0.1:1',
    REGISTRY_CASSANDRA_CONNECT_TIMEOUT_MS: '300',
  })
  await expect(failed).rejects.toThrow(
    /Cassandra at 127\.0\.0\.1:1 did not answer for 300 ms; check REGISTRY_CASSANDRA_CONTACT_POINTS/,
  )
})

test('a data centre that is not there is told by its name', async () => {
  const failed = start(systemClock, {
    REGISTRY_CASSANDRA_LOCAL_DATA_CENTER: 'nowhere',
    REGISTRY_CASSANDRA_CONNECT_TIMEOUT_MS: '300',
  })
  await expect(failed).rejects.toThrow(/REGISTRY_CASSANDRA_LOCAL_DATA_CENTER \(nowhere\)/)
})
