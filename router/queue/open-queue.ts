import type { SASLOptions } from 'kafkajs'
import type { Clock } from '../../service-kit/clock.ts'
import { readDialTls } from '../../service-kit/dial-tls.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { namedFile } from '../../service-kit/named-file.ts'
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
export function openQueue(config: QueueConfig & { readonly insecure?: boolean }, parts: QueueParts): MessageQueue {
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
    ...(config.kafkaTls && {
      tls: readDialTls({
        authorities: namedFile('ROUTER_KAFKA_TLS_CA_FILE', config.kafkaTlsCaFile),
        certificate: namedFile('ROUTER_KAFKA_TLS_CERT_FILE', config.kafkaTlsCertFile),
        key: namedFile('ROUTER_KAFKA_TLS_KEY_FILE', config.kafkaTlsKeyFile),
      }),
    }),
    sasl: loginOf(config),
  })
}

function loginOf({ kafkaSaslMechanism, kafkaSaslUser, kafkaSaslPassword }: QueueConfig): SASLOptions | undefined {
  if (kafkaSaslMechanism === undefined) return undefined
  const login = { username: kafkaSaslUser ?? '', password: kafkaSaslPassword ?? '' }
  switch (kafkaSaslMechanism) {
    case 'plain':
      return { mechanism: 'plain', ...login }
    case 'scram-sha-256':
      return { mechanism: 'scram-sha-256', ...login }
    case 'scram-sha-512':
      return { mechanism: 'scram-sha-512', ...login }
  }
}
