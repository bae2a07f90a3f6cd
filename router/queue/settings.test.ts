import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { defineConfig, describeConfig, readConfig } from '../../service-kit/config.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { openQueue } from './open-queue.ts'
import { brokerList, queueProblems, queueSettings } from './settings.ts'

const definition = defineConfig('router', queueSettings)
const read = (env: Record<string, string>) => readConfig(definition, env)

test('one of Kafka and the file has to be set, and only one', () => {
  expect(queueProblems(read({}))).toEqual([expect.stringContaining('ROUTER_KAFKA_BROKERS is missing')])
  expect(queueProblems(read({ ROUTER_KAFKA_BROKERS: 'k1:9092', ROUTER_QUEUE_PATH: 'q.db' }))).toEqual([
    expect.stringContaining('both set'),
    expect.stringContaining('anybody could read along'),
  ])
  expect(queueProblems(read({ ROUTER_KAFKA_BROKERS: 'dns:///kafka:9092' }))).toEqual([
    expect.stringContaining('dns:///kafka:9092'),
  ])
  expect(queueProblems(read({ ROUTER_KAFKA_BROKERS: 'k1:9092,k2:9092', ROUTER_KAFKA_TLS: 'true' }))).toEqual([])
  expect(queueProblems(read({ ROUTER_QUEUE_PATH: 'q.db' }))).toEqual([])
})

test('Kafka is reached in plain text on this machine only, unless it is allowed; parts of TLS and login go together', () => {
  const problems = (env: Record<string, string>, insecure = false) =>
    queueProblems({ ...read({ ROUTER_KAFKA_BROKERS: '127.0.0.1:9092', ...env }), insecure })
  expect(problems({})).toEqual([])
  const remote = { ROUTER_KAFKA_BROKERS: 'k1:9092' }
  expect(problems(remote)).toEqual([expect.stringMatching(/^ROUTER_KAFKA_BROKERS is "k1:9092".*ROUTER_KAFKA_TLS=true/)])
  expect(problems(remote, true)).toEqual([])
  expect(problems({ ROUTER_KAFKA_TLS_CA_FILE: 'ca' })).toEqual([expect.stringContaining('ROUTER_KAFKA_TLS is not set')])
  expect(problems({ ROUTER_KAFKA_TLS: 'true', ROUTER_KAFKA_TLS_KEY_FILE: 'key' })).toEqual([
    expect.stringContaining('ROUTER_KAFKA_TLS_CERT_FILE and ROUTER_KAFKA_TLS_KEY_FILE go together'),
  ])
  expect(problems({ ROUTER_KAFKA_SASL_USER: 'router' })).toEqual([expect.stringContaining('ROUTER_KAFKA_SASL_MECHANISM')])
  const password = { ROUTER_KAFKA_SASL_PASSWORD: 'very secret' }
  expect(JSON.stringify(describeConfig(definition, read(password)))).not.toContain('very secret')
})

test('a plane is safe unless its operator says otherwise', () => {
  expect(read({ ROUTER_KAFKA_BROKERS: 'k1:9092' })).toMatchObject({
    kafkaTopicPrefix: 'push.',
    kafkaReplicationFactor: 3,
    allowWeakDurability: false,
  })
  expect(() => read({ ROUTER_KAFKA_TOPIC_PREFIX: 'push high', ROUTER_KAFKA_REPLICATION_FACTOR: '0' })).toThrow(
    /ROUTER_KAFKA_TOPIC_PREFIX[\s\S]*ROUTER_KAFKA_REPLICATION_FACTOR/,
  )
  expect(brokerList('k1:9092, k2:9092')).toEqual(['k1:9092', 'k2:9092'])
})

test('a path opens the queue in that file; nothing at all does not open', async () => {
  const parts = { log: silentLog, metrics: createMetrics(), clock: systemClock, random: systemRandom, onFatal: () => {} }
  const folder = await mkdtemp(join(tmpdir(), 'pushplane-queue-'))
  const queue = openQueue(read({ ROUTER_QUEUE_PATH: join(folder, 'queue.db') }), parts)
  expect(queue.state).toBe('ready')
  await queue.close()
  await rm(folder, { recursive: true })
  expect(() => openQueue(read({}), parts)).toThrow(/ROUTER_QUEUE_PATH/)
})
