import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kafka, logLevel, Partitioners } from 'kafkajs'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type KafkaServers, probeBroker, startKafka } from './kafka.ts'
import { freePorts } from './ports.ts'
import { ServerStartError } from './server-node.ts'

let folder: string
let kafka: KafkaServers

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kafka-test-'))
  kafka = await startKafka({ brokers: 1, folder: join(folder, 'good'), temporary: true })
})

afterAll(async () => {
  await kafka?.close()
  await rm(folder, { recursive: true, force: true })
})

function client(): Kafka {
  return new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING })
}

test('a broker that is killed and restarted has its records, on the same address', async () => {
  const [node] = kafka.nodes
  if (node === undefined) throw new Error('no node')
  const topic = 'kept'
  const admin = client().admin()
  await admin.connect()
  await admin.createTopics({ topics: [{ topic, numPartitions: 1 }] })
  await admin.disconnect()
  const producer = client().producer({ idempotent: true, createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  await producer.send({ topic, acks: -1, messages: [{ value: 'a' }, { value: 'b' }] })
  await producer.disconnect()

  const before = node.pid
  await node.kill()
  expect(node.pid).toBeUndefined()
  await expect(probeBroker(node.address)).rejects.toThrow()
  await node.restart()
  expect(node.pid).not.toBe(before)
  expect(node.address).toBe(kafka.bootstrap)

  const again = client().admin()
  await again.connect()
  onTestFinished(() => again.disconnect())
  expect(await again.fetchTopicOffsets(topic)).toMatchObject([{ high: '2', low: '0' }])
  expect(await again.listTopics()).not.toContain('warm-up')
})

test('a paused broker answers nothing until it is resumed', async () => {
  const [node] = kafka.nodes
  node?.pause()
  await expect(probeBroker(kafka.bootstrap)).rejects.toThrow()
  node?.resume()
  await expect(probeBroker(kafka.bootstrap)).resolves.toBeUndefined()
})

test('a broker whose port is taken says so with the end of its log', async () => {
  const somebody = createServer().listen(0, '127.0.0.1')
  onTestFinished(() => void somebody.close())
  await once(somebody, 'listening')
  const address = somebody.address()
  const taken = typeof address === 'object' && address !== null ? address.port : 0
  const [free = 0] = await freePorts(1)
  const failure = await startKafka({ brokers: 1, folder: join(folder, 'bad'), ports: [taken, free] }).catch(
    (error: unknown) => error,
  )
  if (!(failure instanceof ServerStartError)) throw new Error('expected a ServerStartError', { cause: failure })
  expect(failure.portTaken).toBe(true)
  expect(failure.message).toMatch(/kafka-1 ended while starting[\s\S]*server\.log[\s\S]*Address already in use/)
})
