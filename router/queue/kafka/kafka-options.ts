import type { KafkaConfig, SASLOptions } from 'kafkajs'
import type { Clock } from '../../../service-kit/clock.ts'
import type { DialTls } from '../../../service-kit/dial-tls.ts'
import type { Log } from '../../../service-kit/log.ts'
import type { Metrics } from '../../../service-kit/metrics.ts'
import type { Random } from '../../../service-kit/random.ts'
import type { LaneConsumerBounds } from './lane-consumer.ts'

export interface KafkaQueueOptions {
  /** `host:port` of brokers to begin with; at least one. */
  readonly brokers: readonly string[]
  /** Default `push.`. */
  readonly topicPrefix?: string
  /** Create topics that are missing. Default true. */
  readonly createTopics?: boolean
  /** Of topics that are created. Default 12. */
  readonly partitionCount?: number
  /** Of topics that are created. Default 3. */
  readonly replicationFactor?: number
  /** Take messages though fewer than 3 replicas, 2 of them in sync, keep them. Default false. */
  readonly allowWeakDurability?: boolean
  /** Reach brokers over TLS. Unset: in plain text. */
  readonly tls?: DialTls
  /** How to log in. Unset: not at all. */
  readonly sasl?: SASLOptions | undefined
  /** Consuming has ended for a reason that does not go away: the process should exit and be started again. */
  readonly onFatal: (error: Error) => void
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  readonly random: Random
  readonly bounds?: Partial<KafkaQueueBounds>
  /** How sockets are opened, for tests. */
  readonly socketFactory?: KafkaConfig['socketFactory']
}

export interface KafkaQueueBounds extends LaneConsumerBounds {
  /** Records that wait for Kafka or are on their way. Default 50_000. */
  readonly backlogRecordsMax: number
  /** Their bytes. Default 64 MiB. */
  readonly backlogBytesMax: number
  /** Records in one request. Default 2_000. */
  readonly batchRecordsMax: number
  /** Bytes in one request; below what a topic takes. Default 768 KiB. */
  readonly batchBytesMax: number
  /** How long a batch behind another one waits for company, ms. Default 2. */
  readonly lingerMs: number
  /** How long Kafka may take for one batch, elections included, before its messages are refused, ms. Default 20_000. */
  readonly sendTimeoutMs: number
  /** How long Kafka may take for any other request, ms. Default 10_000. */
  readonly requestTimeoutMs: number
  /** How long a connection may take to open, ms. Default 3_000. */
  readonly connectTimeoutMs: number
  /** The longest wait between two attempts to reach a Kafka that is away, ms. Default 5_000. */
  readonly reconnectMaxMs: number
  /** How often topics that keep too little are looked at again, ms. Default 30_000. */
  readonly recheckMs: number
  /** How long reading or removing dead letters may take, ms. Default 20_000. */
  readonly deadLettersTimeoutMs: number
}

export const kafkaQueueDefaults: KafkaQueueBounds = {
  backlogRecordsMax: 50_000,
  backlogBytesMax: 64 * 1024 * 1024,
  batchRecordsMax: 2_000,
  batchBytesMax: 768 * 1024,
  lingerMs: 2,
  sendTimeoutMs: 20_000,
  requestTimeoutMs: 10_000,
  connectTimeoutMs: 3_000,
  reconnectMaxMs: 5_000,
  recheckMs: 30_000,
  deadLettersTimeoutMs: 20_000,
  commitIntervalMs: 100,
  fetchWaitMs: 200,
  sessionTimeoutMs: 10_000,
  rebalanceTimeoutMs: 60_000,
  fetchBytesMax: 1024 * 1024,
  restartMaxMs: 10_000,
  leaveTimeoutMs: 5_000,
}
