import { Kafka, logLevel } from 'kafkajs'
import { createBackoff } from '../../../service-kit/backoff.ts'
import { causesOf, isCertificateError } from '../../../service-kit/dial-tls.ts'
import { PushError } from '../../../service-kit/errors.ts'
import {
  type DeadLetterPage,
  type DeadLetterPosition,
  type Lane,
  lanes,
  type MessageQueue,
  type OutgoingRecord,
  type QueueConsumer,
  type StoredDeadLetter,
} from '../message-queue.ts'
import { createOutgoingBuffer, type OutgoingBuffer } from '../outgoing-buffer.ts'
import { type QueueMetrics, queueMetrics } from '../queue-metrics.ts'
import { closedProblem, QueueStatus } from '../queue-status.ts'
import { type TopicNames, topicNames } from '../topics.ts'
import { installBatchCheck } from './batch-check.ts'
import { createDeadLetterTopic, type DeadLetterTopic } from './dead-letter-topic.ts'
import { kafkaLog } from './kafka-log.ts'
import { type KafkaQueueBounds, type KafkaQueueOptions, kafkaQueueDefaults } from './kafka-options.ts'
import { LaneConsumer } from './lane-consumer.ts'
import { openProducer, type RecordProducer, type TopicRecord } from './producer.ts'
import { checkTopics, type TopicPlan } from './topic-check.ts'

/** Bytes that a record may have, key included. Dead letters carry a whole record and more about it. */
const recordBytesMax = 700 * 1024
const deadLetterBytesMax = 1536 * 1024
/** What topics are created to take. */
const laneBatchBytesMax = 1024 * 1024 + 12
const deadLetterBatchBytesMax = 2 * 1024 * 1024
/** What Kafka puts around a record, at most. */
const recordOverheadBytes = 100
/** One day more than the longest time to live. */
const retentionMs = 31 * 24 * 60 * 60 * 1000
/** What operators have done is asked for long afterwards. */
const auditRetentionMs = 400 * 24 * 60 * 60 * 1000

/**
 * Opens the queue on Kafka. Returns at once and never fails because Kafka is away: it goes on trying, and `state` tells. The caller closes it.
 */
export function openKafkaQueue(options: KafkaQueueOptions): MessageQueue {
  return new KafkaQueue(options)
}

class KafkaQueue implements MessageQueue {
  readonly #options: KafkaQueueOptions
  readonly #bounds: KafkaQueueBounds
  readonly #names: TopicNames
  readonly #metrics: QueueMetrics
  readonly #kafka: Kafka
  readonly #status: QueueStatus
  readonly #buffer: OutgoingBuffer<TopicRecord>
  readonly #plan: TopicPlan
  readonly #closing = new AbortController()
  readonly #deadLetters: DeadLetterTopic
  readonly #lanesDown = new Set<Lane>()
  #producer: RecordProducer | undefined
  #problem: string | undefined = 'Kafka has not answered yet'
  readonly #firstLook = Promise.withResolvers<void>()
  #preparing: Promise<void> | undefined
  /** Ends the pause between two looks. */
  #pause = new AbortController()
  #lanes: LaneConsumer[] | undefined
  #generation = 0

  constructor(options: KafkaQueueOptions) {
    this.#options = options
    const { brokers, log, metrics, clock, socketFactory } = options
    const bounds: KafkaQueueBounds = { ...kafkaQueueDefaults, ...options.bounds }
    this.#bounds = bounds
    this.#names = topicNames(options.topicPrefix ?? 'push.')
    this.#metrics = queueMetrics(metrics)
    this.#status = new QueueStatus(log, this.#metrics)
    installBatchCheck()
    this.#kafka = new Kafka({
      clientId: 'push-router',
      brokers: [...brokers],
      logLevel: logLevel.WARN,
      logCreator: kafkaLog(log),
      connectionTimeout: bounds.connectTimeoutMs,
      requestTimeout: bounds.requestTimeoutMs,
      retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: 5 },
      ...(socketFactory ? { socketFactory } : {}),
      ...(options.tls && { ssl: options.tls }),
      ...(options.sasl && { sasl: options.sasl }),
    })
    this.#plan = {
      topics: [
        ...lanes.map((lane) => ({ name: this.#names.lanes[lane], recordBytesMax: laneBatchBytesMax })),
        { name: this.#names.deadLetter, recordBytesMax: deadLetterBatchBytesMax },
        { name: this.#names.receipts, recordBytesMax: laneBatchBytesMax },
        { name: this.#names.audit, recordBytesMax: laneBatchBytesMax, retentionMs: auditRetentionMs },
      ],
      create: options.createTopics ?? true,
      partitionCount: options.partitionCount ?? 12,
      replicationFactor: options.replicationFactor ?? 3,
      retentionMs,
      allowWeakDurability: options.allowWeakDurability ?? false,
    }
    this.#deadLetters = createDeadLetterTopic({
      kafka: this.#kafka,
      topic: this.#names.deadLetter,
      groupPrefix: this.#names.deadLetterGroupPrefix,
      timeoutMs: bounds.deadLettersTimeoutMs,
      leaveTimeoutMs: bounds.leaveTimeoutMs,
      closing: this.#closing.signal,
      clock,
      random: options.random,
      log,
    })
    this.#buffer = createOutgoingBuffer<TopicRecord>({
      send: (records) => this.#send(records),
      sizeOf: ({ key, value }) => key.length + value.byteLength + recordOverheadBytes,
      recordCountMax: bounds.backlogRecordsMax,
      bytesMax: bounds.backlogBytesMax,
      batchCountMax: bounds.batchRecordsMax,
      batchBytesMax: bounds.batchBytesMax,
      lingerMs: bounds.lingerMs,
      clock,
      metrics: this.#metrics,
    })
    this.#prepare()
  }

  get state() {
    return this.#status.state
  }

  get stateReason() {
    return this.#status.reason
  }

  onStateChange(listener: Parameters<MessageQueue['onStateChange']>[0]) {
    return this.#status.onChange(listener)
  }

  async publish({ lane, key, value }: OutgoingRecord): Promise<void> {
    if (this.#status.state !== 'ready') throw this.#unavailable()
    await this.#put({ topic: this.#names.lanes[lane], key, value }, recordBytesMax)
    this.#metrics.published.inc({ lane })
  }

  async publishDeadLetter(key: string, value: Uint8Array): Promise<void> {
    // Not tied to `state`: where messages are refused for weak durability, those in the queue must still come to an end.
    if (!this.#producer) throw this.#unavailable()
    await this.#put({ topic: this.#names.deadLetter, key, value }, deadLetterBytesMax)
  }

  async publishReceipt(key: string, value: Uint8Array): Promise<void> {
    if (!this.#producer) throw this.#unavailable()
    await this.#put({ topic: this.#names.receipts, key, value }, recordBytesMax)
  }

  async publishAudit(key: string, value: Uint8Array): Promise<void> {
    // Not tied to `state` either: what operators do about it must be recorded.
    if (!this.#producer) throw this.#unavailable()
    await this.#put({ topic: this.#names.audit, key, value }, recordBytesMax)
  }

  listDeadLetters(page: { after?: DeadLetterPosition | undefined; limit: number }): Promise<DeadLetterPage> {
    return this.#deadLetters.listDeadLetters(page)
  }

  readDeadLetters(positions: readonly DeadLetterPosition[]): Promise<readonly StoredDeadLetter[]> {
    return this.#deadLetters.readDeadLetters(positions)
  }

  purgeDeadLettersBefore(timeMs: number): Promise<number> {
    return this.#deadLetters.purgeDeadLettersBefore(timeMs)
  }

  async consume(consumer: QueueConsumer): Promise<void> {
    if (this.#lanes) throw new Error('the queue is consumed already')
    const { log, clock, random, onFatal } = this.#options
    this.#lanes = lanes.map(
      (lane) =>
        new LaneConsumer({
          kafka: this.#kafka,
          lane,
          topic: this.#names.lanes[lane],
          groupId: this.#names.groups[lane],
          consumer,
          nextGeneration: () => ++this.#generation,
          fetchCommitted: (groupId, topic) => this.#fetchCommitted(groupId, topic),
          onRunning: (running) => this.#laneRuns(lane, running),
          onFatal,
          log,
          metrics: this.#metrics,
          clock,
          random,
          bounds: this.#bounds,
        }),
    )
    // Not before Kafka has answered and the topics had their chance to be created.
    void this.#firstLook.promise.then(() => {
      for (const lane of this.#lanes ?? []) lane.start()
    })
  }

  async stopConsuming(settle: () => Promise<void>): Promise<void> {
    const running = this.#lanes ?? []
    this.#lanes = this.#lanes && []
    for (const lane of running) lane.holdAll()
    if (running.length > 0) await settle()
    await Promise.all(running.map((lane) => this.#within(lane.commitNow(), this.#bounds.leaveTimeoutMs)))
    await Promise.all(running.map((lane) => lane.stop()))
    this.#lanesDown.clear()
    this.#updateStatus()
  }

  async skip(lane: Lane, partition: number, offset: bigint): Promise<boolean> {
    const index = lanes.indexOf(lane)
    return this.#lanes?.[index]?.skip(partition, offset) ?? false
  }

  async close(): Promise<void> {
    const running = this.#lanes ?? []
    this.#lanes = this.#lanes && []
    await Promise.all(running.map((lane) => lane.stop()))
    await this.#buffer.drained()
    this.#closing.abort()
    this.#pause.abort()
    await this.#within(this.#deadLetters.left(), this.#bounds.leaveTimeoutMs)
    if (this.#preparing) await this.#within(this.#preparing, this.#bounds.leaveTimeoutMs)
    await this.#producer?.close()
    this.#producer = undefined
    this.#problem = closedProblem
    this.#status.close()
  }

  // Publishing.

  async #put(record: TopicRecord, bytesMax: number): Promise<void> {
    if (this.#closing.signal.aborted) throw this.#unavailable()
    if (record.key.length + record.value.byteLength > bytesMax) {
      throw new PushError(
        'PAYLOAD_TOO_LARGE',
        `a record of ${record.value.byteLength} bytes is larger than the queue takes (${bytesMax})`,
      )
    }
    await this.#buffer.add(record)
  }

  async #send(records: readonly TopicRecord[]): Promise<void> {
    const producer = this.#producer
    if (!producer) throw this.#unavailable()
    try {
      await producer.send(records)
    } catch (error) {
      this.#metrics.publishFailures.inc()
      this.#options.log.warn('queue has not taken a batch', { record_count: records.length, cause: error })
      this.#producer = undefined
      this.#problem = 'Kafka does not take messages at the moment'
      this.#updateStatus()
      void producer.close()
      // They would wait for as long again, each batch in turn.
      this.#buffer.rejectWaiting(this.#unavailable())
      this.#prepare()
      throw this.#unavailable(error)
    }
  }

  #unavailable(cause?: unknown): PushError {
    const reason = this.#status.reason ?? 'Kafka does not take messages at the moment'
    return new PushError(
      'QUEUE_UNAVAILABLE',
      `the queue is unavailable: ${reason}`,
      {},
      { retryAfterMs: 1_000, ...(cause ? { cause } : {}) },
    )
  }

  // Reaching Kafka.

  /** Looks for Kafka until it answers, its topics are right and there is a producer. One such search at a time; a pause in it ends now. */
  #prepare(): void {
    if (this.#closing.signal.aborted) return
    this.#pause.abort()
    if (this.#preparing) return
    this.#preparing = this.#search().finally(() => {
      this.#preparing = undefined
    })
  }

  async #search(): Promise<void> {
    const { random, clock, log } = this.#options
    const backoff = createBackoff({ baseMs: 250, capMs: this.#bounds.reconnectMaxMs, random })
    const { signal } = this.#closing
    const told = new Set<string>()
    while (!signal.aborted) {
      let waitMs: number
      this.#pause = new AbortController()
      try {
        this.#problem = await this.#look()
        this.#status.answered()
        this.#firstLook.resolve()
        this.#updateStatus()
        if (this.#problem === undefined && this.#lanesDown.size === 0) return
        waitMs = this.#bounds.recheckMs
        if (this.#problem === undefined) waitMs = Math.max(1_000, backoff.next())
      } catch (error) {
        waitMs = backoff.next()
        const { problem, remedy } = this.#whyNot(error)
        this.#problem = problem
        this.#updateStatus()
        // Each problem once for each time that it goes away; `state` tells the rest. Where Kafka is and what to set is for the log alone: the
        // problem goes to publishers too.
        const facts = { problem, remedy, brokers: this.#options.brokers, cause: error, wait_ms: waitMs }
        if (told.has(problem)) log.debug('kafka does not answer', facts)
        else log.warn('kafka does not answer', facts)
        told.add(problem)
      }
      await clock.sleep(waitMs, this.#pause.signal).catch(() => undefined)
    }
  }

  /** What the operator can mend is told as such; a Kafka that is away is not. */
  #whyNot(error: unknown): { problem: string; remedy: string } {
    if (causesOf(error).some(({ name }) => name === 'KafkaJSSASLAuthenticationError'))
      return {
        problem: 'Kafka refuses the login of this router',
        remedy: 'check ROUTER_KAFKA_SASL_MECHANISM, ROUTER_KAFKA_SASL_USER and ROUTER_KAFKA_SASL_PASSWORD',
      }
    if (this.#options.tls && isCertificateError(error))
      return {
        problem: 'Kafka has a certificate that this router does not believe',
        remedy: 'check ROUTER_KAFKA_TLS_CA_FILE, and whether the hosts in ROUTER_KAFKA_BROKERS stand in the certificates',
      }
    return { problem: 'Kafka does not answer', remedy: 'check ROUTER_KAFKA_BROKERS' }
  }

  async #look(): Promise<string | undefined> {
    const { log, clock } = this.#options
    const admin = this.#kafka.admin()
    try {
      await admin.connect()
      const problem = await checkTopics(admin, this.#plan)
      if (this.#producer) return problem
      const producer = await openProducer({ kafka: this.#kafka, log, clock, sendTimeoutMs: this.#bounds.sendTimeoutMs })
      if (this.#closing.signal.aborted) await producer.close()
      else this.#producer = producer
      return problem
    } finally {
      await admin.disconnect().catch(() => undefined)
    }
  }

  async #fetchCommitted(groupId: string, topic: string): Promise<ReadonlyMap<number, bigint>> {
    const admin = this.#kafka.admin()
    try {
      await admin.connect()
      const answers = await admin.fetchOffsets({ groupId, topics: [topic] })
      return new Map(answers.flatMap(({ partitions }) => partitions.map(({ partition, offset }) => [partition, BigInt(offset)])))
    } finally {
      await admin.disconnect().catch(() => undefined)
    }
  }

  #laneRuns(lane: Lane, running: boolean): void {
    if (running) this.#lanesDown.delete(lane)
    else this.#lanesDown.add(lane)
    this.#updateStatus()
    // The topic may have been removed, and may have to be created again.
    if (!running) this.#prepare()
  }

  #updateStatus(): void {
    const down = [...this.#lanesDown]
    this.#status.set(this.#problem ?? (down.length > 0 ? `the consumer of ${down.join(', ')} is being started again` : undefined))
  }

  async #within(work: Promise<void>, timeoutMs: number): Promise<void> {
    const timer = new AbortController()
    await Promise.race([work, this.#options.clock.sleep(timeoutMs, timer.signal).catch(() => undefined)])
    timer.abort()
  }
}
