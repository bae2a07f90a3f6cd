import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { queueHealthName } from '../router/index.ts'
import { systemClock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { type CertificateAuthority, createAuthority } from '../service-kit/testing/certificates.ts'
import { ServiceProcess } from './plane/service-process.ts'
import { type CassandraServers, startCassandra } from './servers/cassandra.ts'
import { type KafkaServers, startKafka } from './servers/kafka.ts'

const password = 'router-s3cret'
let folder: string
let authority: CertificateAuthority
let kafka: KafkaServers
let cassandra: CassandraServers
let caFile: string
let wrongCaFile: string
const services: ServiceProcess[] = []

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-secured-'))
  authority = await createAuthority(Date.now())
  caFile = join(folder, 'ca.crt')
  wrongCaFile = join(folder, 'wrong.crt')
  await writeFile(caFile, authority.certificate)
  await writeFile(wrongCaFile, (await createAuthority(Date.now())).certificate)
  const pair = await authority.issue({ commonName: 'server' })
  const security = { ...pair, authorities: authority.certificate }
  const kafkaSecurity = { ...security, user: 'router', password }
  const started = await Promise.allSettled([
    startKafka({ brokers: 1, folder, temporary: true, security: kafkaSecurity }).then((servers) => {
      kafka = servers
    }),
    startCassandra({ nodes: 1, folder, temporary: true, security }).then((servers) => {
      cassandra = servers
    }),
  ])
  for (const one of started) if (one.status === 'rejected') throw one.reason
})

afterAll(async () => {
  await Promise.all(services.map((service) => service.running && service.kill()))
  await Promise.all([kafka?.close(), cassandra?.close()])
  await rm(folder, { recursive: true, force: true })
})

function service(kind: 'router' | 'registry', env: Record<string, string>): ServiceProcess {
  const entry = fileURLToPath(new URL(`../${kind}/main.ts`, import.meta.url))
  const one = new ServiceProcess({ name: `${kind}-${services.length}`, entry, readyPhrase: `${kind} ready`, folder, env })
  services.push(one)
  return one
}

function router(more: Record<string, string> = {}): ServiceProcess {
  return service('router', {
    ROUTER_LISTEN_ADDRESS: '127.0.0.1:0',
    ROUTER_KAFKA_BROKERS: kafka.bootstrap,
    ROUTER_KAFKA_PARTITION_COUNT: '1',
    ROUTER_KAFKA_REPLICATION_FACTOR: '1',
    ROUTER_ALLOW_WEAK_DURABILITY: 'true',
    ROUTER_KAFKA_TLS: 'true',
    ROUTER_KAFKA_TLS_CA_FILE: caFile,
    ROUTER_KAFKA_SASL_MECHANISM: 'plain',
    ROUTER_KAFKA_SASL_USER: 'router',
    ROUTER_KAFKA_SASL_PASSWORD: password,
    ...more,
  })
}

function connect(to: ServiceProcess) {
  const connection = connectGrpc({ addresses: to.fact('address'), log: silentLog, clock: systemClock })
  onTestFinished(() => connection.close())
  return connection
}

const publishTo = (to: ServiceProcess) =>
  connect(to)
    .client(PublishServiceDefinition)
    .publish({ message: { target: { $case: 'deviceId', value: 'tv-1' } } }, { deadlineMs: 10_000 })
const logOf = (one: ServiceProcess) => JSON.stringify([one.lines(), one.words()])

test.each(['plain', 'scram-sha-512'])(
  'a router queues messages over TLS, logged in by %s, and its log keeps the password to itself',
  async (mechanism) => {
    const one = router({ ROUTER_KAFKA_SASL_MECHANISM: mechanism, ROUTER_KAFKA_TOPIC_PREFIX: `${mechanism}.` })
    await one.start()
    const health = connect(one).client(HealthDefinition)
    await vi.waitFor(async () => expect((await health.check({ service: queueHealthName })).status).toBe(1), {
      timeout: 60_000,
      interval: 200,
    })
    expect((await publishTo(one)).messageId).not.toBe('')
    expect(logOf(one)).not.toContain(password)
    expect(logOf(one)).toContain('ROUTER_KAFKA_SASL_PASSWORD')
    await one.kill()
  },
)

test.each([
  ['a wrong password', { ROUTER_KAFKA_SASL_PASSWORD: 'wrong' }, 'refuses the login of this router'],
  ['a wrong authority', () => ({ ROUTER_KAFKA_TLS_CA_FILE: wrongCaFile }), 'has a certificate that this router does not believe'],
])('with %s the router serves, its queue is not healthy, and it says why', async (_what, env, words) => {
  const one = router(typeof env === 'function' ? env() : env)
  await one.start()
  await vi.waitFor(
    async () => {
      const failure = await publishTo(one).then(
        () => undefined,
        (error: unknown) => callErrorOf(error),
      )
      expect(failure).toMatchObject({ reason: 'QUEUE_UNAVAILABLE', message: expect.stringContaining(words) })
      // Where Kafka is and how the router is set up is nothing for publishers.
      expect(failure?.message).not.toMatch(/127\.0\.0\.1|ROUTER_/)
    },
    { timeout: 60_000, interval: 500 },
  )
  expect((await connect(one).client(HealthDefinition).check({ service: queueHealthName })).status).not.toBe(1)
  // Told once, though it is tried again and again; on a busy machine a first attempt may have found nobody at all.
  const told = one
    .lines()
    .filter(({ phrase, facts }) => phrase === 'kafka does not answer' && String(facts.problem).includes(words))
  expect(told).toMatchObject([{ level: 'warn' }])
  await one.kill()
})

function registry(more: Record<string, string> = {}): ServiceProcess {
  return service('registry', {
    REGISTRY_LISTEN_ADDRESS: '127.0.0.1:0',
    REGISTRY_CASSANDRA_CONTACT_POINTS: cassandra.contactPoints.join(','),
    REGISTRY_CASSANDRA_PORT: String(cassandra.port),
    REGISTRY_CASSANDRA_LOCAL_DATA_CENTER: cassandra.localDataCenter,
    REGISTRY_CASSANDRA_CREATE_KEYSPACE: 'true',
    REGISTRY_CASSANDRA_REPLICATION_FACTOR: '1',
    REGISTRY_CASSANDRA_TLS: 'true',
    REGISTRY_CASSANDRA_TLS_CA_FILE: caFile,
    REGISTRY_CASSANDRA_USER: 'cassandra',
    REGISTRY_CASSANDRA_PASSWORD: 'cassandra',
    ...more,
  })
}

test('a registry keeps its tables in a Cassandra that it reaches over TLS and logs in to', async () => {
  const one = registry()
  await one.start()
  const health = connect(one).client(HealthDefinition)
  await vi.waitFor(async () => expect((await health.check({ service: '' })).status).toBe(1), { timeout: 30_000, interval: 200 })
  await one.kill()
})

test.each([
  [
    'a wrong password',
    { REGISTRY_CASSANDRA_PASSWORD: 'wr0ng-password' },
    'refuses the login of this registry; check REGISTRY_CASSANDRA_USER',
  ],
  ['a wrong authority', () => ({ REGISTRY_CASSANDRA_TLS_CA_FILE: wrongCaFile }), 'check REGISTRY_CASSANDRA_TLS_CA_FILE'],
  [
    'an authority that cannot be read',
    { REGISTRY_CASSANDRA_TLS_CA_FILE: '/nowhere' },
    'REGISTRY_CASSANDRA_TLS_CA_FILE names /nowhere',
  ],
])('with %s the registry ends at once, and says what to check', async (_what, env, words) => {
  const one = registry(typeof env === 'function' ? env() : env)
  await expect(one.start()).rejects.toThrow(words)
  expect(logOf(one)).not.toContain('wr0ng-password')
})
