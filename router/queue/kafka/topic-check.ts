import kafkajs, { type Admin } from 'kafkajs'

// Node finds only some of kafkajs's names in its CommonJS; these are on the whole module.
const { ConfigResourceTypes } = kafkajs

export interface TopicPlan {
  /** Every topic there must be, the largest record it must take, bytes, and how long it keeps them, ms, where that differs from the others. */
  readonly topics: ReadonlyArray<{ readonly name: string; readonly recordBytesMax: number; readonly retentionMs?: number }>
  /** Creates those that are missing. */
  readonly create: boolean
  /** Of topics that are created. */
  readonly partitionCount: number
  readonly replicationFactor: number
  /** How long records are kept, ms. Longer than the longest time to live: an accepted message must not vanish before it expires. */
  readonly retentionMs: number
  /** Takes what a broken disk can lose. */
  readonly allowWeakDurability: boolean
}

/** What accepted means: a record is on this many brokers before a publisher is told so. */
export const inSyncMin = 2
export const replicationMin = 3

/**
 * Makes sure that the topics are there and keep what they are given. Returns why QUEUED messages must be refused, for people to read, or
 * undefined when all is well. Throws what kafkajs throws when Kafka does not answer.
 */
export async function checkTopics(admin: Admin, plan: TopicPlan): Promise<string | undefined> {
  const present = new Set(await admin.listTopics())
  const missing = plan.topics.filter((topic) => !present.has(topic.name))
  if (missing.length > 0) {
    const names = missing.map((topic) => topic.name).join(', ')
    if (!plan.create) return `these topics are missing in Kafka: ${names}; create them, or set ROUTER_KAFKA_CREATE_TOPICS`
    const refusal = await createTopics(admin, missing, plan)
    if (refusal) return refusal
  }
  return plan.allowWeakDurability ? undefined : findWeakness(admin, plan)
}

async function createTopics(admin: Admin, missing: TopicPlan['topics'], plan: TopicPlan): Promise<string | undefined> {
  const { brokers } = await admin.describeCluster()
  if (plan.replicationFactor > brokers.length) {
    return (
      `Kafka has ${brokers.length} broker(s), so topics with replication factor ${plan.replicationFactor} cannot be created: ` +
      'add brokers, or set ROUTER_KAFKA_REPLICATION_FACTOR lower and ROUTER_ALLOW_WEAK_DURABILITY'
    )
  }
  await admin.createTopics({
    waitForLeaders: true,
    topics: missing.map(({ name, recordBytesMax, retentionMs = plan.retentionMs }) => ({
      topic: name,
      numPartitions: plan.partitionCount,
      replicationFactor: plan.replicationFactor,
      configEntries: [
        { name: 'min.insync.replicas', value: String(Math.min(inSyncMin, plan.replicationFactor)) },
        { name: 'retention.ms', value: String(retentionMs) },
        { name: 'cleanup.policy', value: 'delete' },
        { name: 'max.message.bytes', value: String(recordBytesMax) },
      ],
    })),
  })
  return undefined
}

async function findWeakness(admin: Admin, plan: TopicPlan): Promise<string | undefined> {
  const names = plan.topics.map((topic) => topic.name)
  const advice = 'set ROUTER_ALLOW_WEAK_DURABILITY to accept messages all the same'
  const { topics } = await admin.fetchTopicMetadata({ topics: names })
  for (const { name, partitions } of topics) {
    const replicas = Math.min(...partitions.map((partition) => partition.replicas.length))
    if (replicas < replicationMin) {
      return `topic ${name} has replication factor ${replicas}, below ${replicationMin}: a message could be lost with a disk; ${advice}`
    }
  }
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: names.map((name) => ({ type: ConfigResourceTypes.TOPIC, name, configNames: ['min.insync.replicas'] })),
  })
  for (const { resourceName, configEntries } of resources) {
    const value = Number(configEntries.find((entry) => entry.configName === 'min.insync.replicas')?.configValue)
    if (!(value >= inSyncMin)) {
      return `topic ${resourceName} has min.insync.replicas ${value}, below ${inSyncMin}: a message could be lost with a disk; ${advice}`
    }
  }
  return undefined
}
