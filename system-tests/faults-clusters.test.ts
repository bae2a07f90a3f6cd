import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { acceptedSince, expectAllDelivered, expectFewRefused, isQueued, settleTimeoutMs, startRun } from './fault-run.ts'
import { failures, until, untilFinished } from './run.ts'
import { type KafkaServers, startKafka } from './servers/kafka.ts'

/** Nodes that are started again on two cores beside a whole plane take their time. */
const clusterTestTimeoutMs = 300_000
const startTimeoutMs = 240_000
/** Three nodes and a plane have enough to do on two cores. Messages outlive what it takes to start nodes again there. */
const gently = { pauseMs: 100, ttlMs: 600_000 }
/** How long something that goes on by itself may take to do so. */
const goOnTimeoutMs = 60_000

describe('three Kafka brokers', () => {
  let folder: string
  let kafka: KafkaServers

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pushplane-brokers-'))
    kafka = await startKafka({ brokers: 3, folder, temporary: true })
  }, startTimeoutMs)

  afterAll(async () => {
    await kafka?.close()
    await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  })

  /** The least number of replicas in sync, over all partitions of these topics, and who leads them. */
  async function topicState(topics: string[]) {
    const running = kafka.nodes.filter(({ pid }) => pid !== undefined).map(({ address }) => address)
    const admin = new Kafka({ clientId: 'test', brokers: running, logLevel: logLevel.NOTHING }).admin()
    await admin.connect()
    try {
      const partitions = (await admin.fetchTopicMetadata({ topics })).topics.flatMap((topic) => topic.partitions)
      return { inSync: Math.min(...partitions.map(({ isr }) => isr.length)), leaders: partitions.map(({ leader }) => leader) }
    } finally {
      await admin.disconnect()
    }
  }

  test(
    'kill -9 of the active one under load: accepting goes on in full durability, and nothing is lost',
    async () => {
      const { plane, run, load, publisher, fleet } = await startRun({
        registryCount: 1,
        routerCount: 2,
        edgeCount: 2,
        deviceCount: 60,
        kafkaBrokers: kafka.brokers,
        routerEnv: { ROUTER_KAFKA_REPLICATION_FACTOR: '3', ROUTER_ALLOW_WEAK_DURABILITY: 'false' },
      })
      const topics = ['high', 'normal', 'low'].map((lane) => `${plane.topicPrefix}${lane}`)
      const queue = load({ directShare: 0, ...gently })
      const direct = load({ directShare: 1, publisherCount: 4, ...gently })
      expect(await until(() => acceptedSince(publisher.published, 0).length > 100, goOnTimeoutMs)).toBe(true)
      const victim = await kafka.activeController()
      // It leads partitions that are written to as well.
      expect((await topicState(topics)).leaders.map((leader) => `kafka-${leader}`)).toContain(victim.name)
      await victim.kill()
      const killedAt = Date.now()
      const handledSince = () => {
        const handled = new Set(
          fleet.logs
            .flatMap(({ processes }) => processes.flatMap((process) => process.handled))
            .map(({ messageId }) => messageId),
        )
        return acceptedSince(publisher.published, killedAt).filter(({ answer }) => handled.has(answer?.messageId ?? ''))
      }
      // On every topic messages are taken and delivered without it.
      const goesOn = () =>
        (['HIGH', 'NORMAL', 'LOW'] as const).every(
          (priority) => handledSince().filter((message) => message.priority === priority).length > 50,
        )
      expect(await until(goesOn, goOnTimeoutMs)).toBe(true)
      await expect.poll(async () => (await topicState(topics)).inSync, { timeout: goOnTimeoutMs, interval: 500 }).toBe(2)
      await victim.restart()
      await expect.poll(async () => (await topicState(topics)).inSync, { timeout: goOnTimeoutMs, interval: 500 }).toBe(3)
      await Promise.all([queue.stop(), direct.stop()])
      await untilFinished(run, settleTimeoutMs)
      await expectAllDelivered('one of three brokers killed', run)
      // Calls that came to nothing were told to be repeated; direct ones need no broker.
      const failed = failures(publisher.published.filter(isQueued))
      expect(failed.filter((failure) => !/UNAVAILABLE|DEADLINE_EXCEEDED/.test(failure))).toEqual([])
      expectFewRefused(publisher.published.filter((message) => !isQueued(message)))
      expect(plane.settled().filter(({ state }) => state === 'DEAD_LETTERED' || state === 'DROPPED')).toEqual([])
    },
    clusterTestTimeoutMs,
  )
})
