import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { openEmbeddedQueue } from './embedded/embedded-queue.ts'
import { openKafkaQueue } from './kafka/kafka-queue.ts'
import type { MessageQueue } from './message-queue.ts'
import { brokerList, type QueueConfig, queueProblems } from './settings.ts'

export interface QueueParts {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Consuming has ended for a reason that does not go away: the process should exit and be started again. */
  readonly onFatal: (error: Error) => void
}

/** Opens the queue that the settings ask for. Throws a StartError when they ask for none or the file cannot be used. The caller closes it. */
export function openQueue(config: QueueConfig, parts: QueueParts): MessageQueue {
  const problems = queueProblems(config)
  if (problems.length > 0) throw new StartError(problems.join('\n'))
  if (config.kafkaBrokers === undefined) return openEmbeddedQueue({ ...parts, path: config.queuePath ?? '' })
  return openKafkaQueue({
    ...parts,
    brokers: brokerList(config.kafkaBrokers),
    topicPrefix: config.kafkaTopicPrefix,
    createTopics: config.kafkaCreateTopics,
    partitionCount: config.kafkaPartitionCount,
    replicationFactor: config.kafkaReplicationFactor,
    allowWeakDurability: config.allowWeakDurability,
  })
}
