import { randomBytes } from 'node:crypto'
import { Kafka, logLevel } from 'kafkajs'
import { systemClock } from '../../../service-kit/clock.ts'
import { createMetrics, type Metrics } from '../../../service-kit/metrics.ts'
import { systemRandom } from '../../../service-kit/random.ts'
import { type RecordingLog, recordingLog } from '../../../service-kit/testing/recording-log.ts'
import type { KafkaQueueBounds, KafkaQueueOptions } from '../kafka/kafka-options.ts'
import { openKafkaQueue } from '../kafka/kafka-queue.ts'
import type { MessageQueue } from '../message-queue.ts'
import { type TopicNames, topicNames } from '../topics.ts'

/** Topics and groups of one test on a real Kafka, and the queues it opens on them. */
export interface KafkaStand {
  readonly names: TopicNames
  /** A client apart from the queue's own. */
  readonly kafka: Kafka
  open(options?: Partial<KafkaQueueOptions>): OpenedQueue
  openReady(options?: Partial<KafkaQueueOptions>): Promise<OpenedQueue>
  /** What a group has committed in a lane, by partition; -1: nothing. */
  committed(lane: 'high' | 'normal' | 'low'): Promise<number[]>
  /** Closes the queues that are still open and removes the topics. */
  close(): Promise<void>
}

export interface OpenedQueue {
  readonly queue: MessageQueue
  readonly metrics: Metrics
  readonly log: RecordingLog
  readonly fatal: Error[]
}

export function kafkaStand(brokers: readonly string[], defaults: Partial<KafkaQueueOptions> = {}): KafkaStand {
  const topicPrefix = `t${randomBytes(6).toString('hex')}.`
  const names = topicNames(topicPrefix)
  const kafka = new Kafka({ clientId: 'test', brokers: [...brokers], logLevel: logLevel.NOTHING })
  const opened: OpenedQueue[] = []

  const open = (options: Partial<KafkaQueueOptions> = {}): OpenedQueue => {
    const metrics = createMetrics()
    const log = recordingLog()
    const fatal: Error[] = []
    const bounds: Partial<KafkaQueueBounds> = {
      restartMaxMs: 1_000,
      reconnectMaxMs: 1_000,
      ...defaults.bounds,
      ...options.bounds,
    }
    const queue = openKafkaQueue({
      brokers,
      topicPrefix,
      partitionCount: 2,
      replicationFactor: 1,
      allowWeakDurability: true,
      onFatal: (error) => fatal.push(error),
      log,
      metrics,
      clock: systemClock,
      random: systemRandom,
      ...defaults,
      ...options,
      bounds,
    })
    const entry = { queue, metrics, log, fatal }
    opened.push(entry)
    return entry
  }

  const withAdmin = async <T>(use: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> => {
    const admin = kafka.admin()
    await admin.connect()
    try {
      return await use(admin)
    } finally {
      await admin.disconnect()
    }
  }

  return {
    names,
    kafka,
    open,
    openReady: async (options) => {
      const entry = open(options)
      await untilState(entry.queue, 'ready')
      return entry
    },
    committed: (lane) =>
      withAdmin(async (admin) => {
        const [answer] = await admin.fetchOffsets({ groupId: names.groups[lane], topics: [names.lanes[lane]] })
        return (answer?.partitions ?? []).sort((a, b) => a.partition - b.partition).map(({ offset }) => Number(offset))
      }),
    close: async () => {
      await Promise.all(opened.map(({ queue }) => queue.close()))
      await withAdmin(async (admin) => {
        const ours = (await admin.listTopics()).filter((topic) => topic.startsWith(topicPrefix))
        if (ours.length > 0) await admin.deleteTopics({ topics: ours })
      })
    },
  }
}

/** Resolves when the queue has that state. */
export function untilState(queue: MessageQueue, state: MessageQueue['state'], timeoutMs = 30_000): Promise<void> {
  return new Promise((resolve, reject) => {
    if (queue.state === state) {
      resolve()
      return
    }
    const timer = setTimeout(() => {
      forget()
      reject(new Error(`the queue is ${queue.state}, not ${state}: ${queue.stateReason}`))
    }, timeoutMs)
    const forget = queue.onStateChange((now) => {
      if (now !== state) return
      clearTimeout(timer)
      forget()
      resolve()
    })
  })
}
