import type { Admin } from 'kafkajs'
import { expect, test } from 'vitest'
import { checkTopics, type TopicPlan } from './topic-check.ts'

const plan: TopicPlan = {
  topics: [
    { name: 'push.high', recordBytesMax: 1_000 },
    { name: 'push.low', recordBytesMax: 1_000 },
  ],
  create: true,
  partitionCount: 12,
  replicationFactor: 3,
  retentionMs: 1_000,
  allowWeakDurability: false,
}

/** A cluster whose topics keep what is said here: replicas and min.insync.replicas. */
function cluster(topics: Record<string, { replicas: number; inSync: string }>, brokerCount = 3) {
  const created: Array<{ topic: string; replicationFactor: number; configEntries: Array<{ name: string; value: string }> }> = []
  const admin = {
    listTopics: async () => Object.keys(topics),
    describeCluster: async () => ({ brokers: Array(brokerCount).fill({}) }),
    createTopics: async (request: { topics: typeof created }) => {
      for (const topic of request.topics) {
        created.push(topic)
        const inSync = topic.configEntries.find(({ name }) => name === 'min.insync.replicas')?.value ?? '1'
        topics[topic.topic] = { replicas: topic.replicationFactor, inSync }
      }
    },
    fetchTopicMetadata: async ({ topics: names }: { topics: string[] }) => ({
      topics: names.map((name) => ({ name, partitions: [{ replicas: Array(topics[name]?.replicas).fill(0) }] })),
    }),
    describeConfigs: async ({ resources }: { resources: Array<{ name: string }> }) => ({
      resources: resources.map(({ name }) => ({
        resourceName: name,
        configEntries: [{ configName: 'min.insync.replicas', configValue: topics[name]?.inSync }],
      })),
    }),
  }
  return { admin: admin as unknown as Admin, created }
}

test('three replicas, two in sync: all is well', async () => {
  const sound = { replicas: 3, inSync: '2' }
  const { admin, created } = cluster({ 'push.high': sound, 'push.low': sound })
  expect(await checkTopics(admin, plan)).toBeUndefined()
  expect(created).toEqual([])
})

test('one topic that keeps too little is named, with the setting that takes it', async () => {
  const high = { replicas: 3, inSync: '2' }
  const fewReplicas = cluster({ 'push.high': high, 'push.low': { replicas: 2, inSync: '2' } })
  expect(await checkTopics(fewReplicas.admin, plan)).toMatch(/push\.low has replication factor 2.*ROUTER_ALLOW_WEAK_DURABILITY/)
  const fewInSync = cluster({ 'push.high': high, 'push.low': { replicas: 3, inSync: '1' } })
  expect(await checkTopics(fewInSync.admin, plan)).toMatch(/push\.low has min\.insync\.replicas 1.*ROUTER_ALLOW_WEAK_DURABILITY/)
  expect(await checkTopics(fewInSync.admin, { ...plan, allowWeakDurability: true })).toBeUndefined()
})

test('missing topics are created so that they pass the check, and the others are left alone', async () => {
  const { admin, created } = cluster({ 'push.high': { replicas: 3, inSync: '2' } })
  expect(await checkTopics(admin, plan)).toBeUndefined()
  expect(created.map(({ topic }) => topic)).toEqual(['push.low'])
})

test('nothing is created where it must not be', async () => {
  const { admin, created } = cluster({})
  expect(await checkTopics(admin, { ...plan, create: false })).toMatch(
    /missing in Kafka: push\.high, push\.low.*ROUTER_KAFKA_CREATE_TOPICS/,
  )
  const small = cluster({}, 2)
  expect(await checkTopics(small.admin, plan)).toMatch(/2 broker\(s\).*ROUTER_KAFKA_REPLICATION_FACTOR/)
  expect([...created, ...small.created]).toEqual([])
})
