import type { Batch, Consumer, EachBatchPayload, Kafka } from 'kafkajs'
import { type Backoff, createBackoff } from '../../../service-kit/backoff.ts'
import type { Clock, Timer } from '../../../service-kit/clock.ts'
import type { Log } from '../../../service-kit/log.ts'
import type { Random } from '../../../service-kit/random.ts'
import type { Lane, QueueConsumer, QueueRecord } from '../message-queue.ts'
import type { QueueMetrics } from '../queue-metrics.ts'
import { undecodableBatchOf } from './batch-check.ts'
import { CommitWriter, placesOf } from './commit-writer.ts'
import { KafkaLease, type Stop } from './partition-lease.ts'

export interface LaneConsumerOptions {
  readonly kafka: Kafka
  readonly lane: Lane
  readonly topic: string
  readonly groupId: string
  readonly consumer: QueueConsumer
  /** Numbers the leases of all lanes. */
  readonly nextGeneration: () => number
  /** What the group has committed for the topic, by partition; absent or negative: nothing. */
  readonly fetchCommitted: (groupId: string, topic: string) => Promise<ReadonlyMap<number, bigint>>
  /** The consumer is in its group, or has left it after a failure and will be back. */
  readonly onRunning: (running: boolean) => void
  /** The consumer has given up for a reason that will not go away by itself. */
  readonly onFatal: (error: Error) => void
  readonly log: Log
  readonly metrics: QueueMetrics
  readonly clock: Clock
  readonly random: Random
  readonly bounds: LaneConsumerBounds
}

export interface LaneConsumerBounds {
  /** How long commits are gathered, ms. Default 100. */
  readonly commitIntervalMs: number
  /** How long a fetch waits for records, and so how long a resumed partition may stand, ms. Default 200. */
  readonly fetchWaitMs: number
  /**
   * Without a sign of life for so long the group takes the partitions away, ms. Default 10_000. So long the partitions of a router that was
   * killed stand still, and so long Kafka waits for earlier members when it was itself away.
   */
  readonly sessionTimeoutMs: number
  /** How long members of the group are waited for at a rebalance, ms. Default 60_000. */
  readonly rebalanceTimeoutMs: number
  /** Bytes fetched of a partition at once. Default 1 MiB. */
  readonly fetchBytesMax: number
  /** The longest wait before the consumer is started again, ms. Default 10_000. */
  readonly restartMaxMs: number
  /** How long leaving the group may take, ms. Default 5_000. */
  readonly leaveTimeoutMs: number
}

/** kafkajs has it, its types do not: the offset that was asked for. */
type FetchedBatch = Batch & { readonly fetchedOffset: string }

/** The consumer of one lane: one kafkajs consumer at a time, begun anew after a failure. Every rule in here answers a loss or a stall. */
export class LaneConsumer {
  readonly #options: LaneConsumerOptions
  readonly #log: Log
  readonly #backoff: Backoff
  #leases = new Map<number, KafkaLease>()
  #kafkaConsumer: Consumer | undefined
  #starting: Promise<void> = Promise.resolve()
  #restart: Timer | undefined
  #stopped = false
  #holdAll = false
  /** What the group had committed when this generation began. */
  #committedAtStart: Promise<ReadonlyMap<number, bigint>> = Promise.resolve(new Map())
  readonly #commits: CommitWriter
  /** The highest commit that this process knows of. */
  readonly #knownCommits = new Map<number, bigint>()
  /** Starts that were further on than expected, seen once. */
  readonly #seenAhead = new Map<number, bigint>()
  readonly #alarmed = new Set<string>()
  /** What operators have passed over: partition and first offset. */
  readonly #skips = new Map<string, Stop>()

  constructor(options: LaneConsumerOptions) {
    this.#options = options
    this.#log = options.log.child({ lane: options.lane, topic: options.topic })
    this.#commits = new CommitWriter({
      ...options,
      log: this.#log,
      intervalMs: options.bounds.commitIntervalMs,
      leases: () => [...this.#leases.values()],
      onCommitted: (lease, offset) => this.#knownCommits.set(lease.partition, offset),
    })
    this.#backoff = createBackoff({ baseMs: 500, capMs: options.bounds.restartMaxMs, random: options.random })
  }

  start(): void {
    this.#starting = this.#begin()
  }

  /** Stops fetching and handing over, and keeps the leases. */
  holdAll(): void {
    this.#holdAll = true
    for (const lease of this.#leases.values()) this.pauseChanged(lease)
  }

  /** Writes what is to be committed. Never throws: what cannot be written is handed over again. */
  commitNow(): Promise<void> {
    return this.#commits.now()
  }

  /** Ends the leases and leaves the group. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#restart?.cancel()
    this.#endLeases()
    const leaving = (async () => {
      await this.#starting
      await this.#kafkaConsumer?.disconnect()
    })().catch((error: unknown) => this.#log.warn('consumer did not leave its group in order', { cause: error }))
    const timeout = new AbortController()
    const tooLate = this.#options.clock.sleep(this.#options.bounds.leaveTimeoutMs, timeout.signal).then(
      () => this.#log.warn('consumer took too long to leave its group'),
      () => undefined,
    )
    await Promise.race([leaving, tooLate])
    timeout.abort()
  }

  /** Goes on behind the batch that stopped the partition at this offset; false if it does not stand there. */
  skip(partition: number, offset: bigint): boolean {
    const lease = this.#leases.get(partition)
    const stop = lease?.stop
    if (!lease || !stop || stop.offset !== offset) return false
    this.#skips.set(`${partition}/${stop.offset}`, stop)
    this.#passOver(lease, stop)
    return true
  }

  // What leases ask for.

  commitSoon(): void {
    this.#commits.soon()
  }

  pauseChanged(lease: KafkaLease): void {
    const consumer = this.#kafkaConsumer
    if (!consumer || lease.ended.aborted || this.#leases.get(lease.partition) !== lease) return
    const place = [{ topic: this.#options.topic, partitions: [lease.partition] }]
    // A paused partition is not fetched; kafkajs goes on to send heartbeats.
    if (lease.held || this.#holdAll) consumer.pause(place)
    else consumer.resume(place)
  }

  // The life of the kafkajs consumer.

  async #begin(): Promise<void> {
    const { kafka, groupId, topic, bounds } = this.#options
    let retriable = false
    const consumer = kafka.consumer({
      groupId,
      minBytes: 1,
      maxWaitTimeInMs: bounds.fetchWaitMs,
      maxBytesPerPartition: bounds.fetchBytesMax,
      sessionTimeout: bounds.sessionTimeoutMs,
      rebalanceTimeout: bounds.rebalanceTimeoutMs,
      heartbeatInterval: Math.floor(bounds.sessionTimeoutMs / 10),
      allowAutoTopicCreation: false,
      retry: {
        // kafkajs asks this only after failures that may go away. We begin anew ourselves: its own restart keeps state of the failed run.
        restartOnFailure: async () => {
          retriable = true
          return false
        },
      },
    })
    this.#kafkaConsumer = consumer
    const { GROUP_JOIN, REBALANCING, CRASH, STOP } = consumer.events
    const whileCurrent =
      <T>(act: (event: T) => void) =>
      (event: T) => {
        if (this.#kafkaConsumer === consumer && !this.#stopped) act(event)
      }
    consumer.on(
      GROUP_JOIN,
      whileCurrent(({ payload }) => this.#joined(consumer, payload.memberAssignment[topic] ?? [])),
    )
    consumer.on(
      REBALANCING,
      whileCurrent(() => this.#endLeases()),
    )
    consumer.on(
      STOP,
      whileCurrent(() => this.#endLeases()),
    )
    consumer.on(
      CRASH,
      whileCurrent(({ payload }) => this.#crashed(payload.error, retriable)),
    )
    try {
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      await consumer.run({
        autoCommit: false,
        eachBatchAutoResolve: false,
        eachBatch: async (payload) => {
          if (this.#kafkaConsumer === consumer) await this.onBatch(payload)
        },
      })
    } catch (error) {
      await consumer.disconnect().catch(() => undefined)
      if (this.#kafkaConsumer === consumer && !this.#stopped) this.#crashed(error, true)
    }
  }

  #crashed(error: unknown, retriable: boolean): void {
    this.#endLeases()
    this.#commits.use(undefined)
    this.#kafkaConsumer = undefined
    if (!retriable) {
      this.#log.error('consumer has failed for good', { cause: error })
      this.#options.onFatal(error instanceof Error ? error : new Error(String(error)))
      return
    }
    this.#options.metrics.consumerCrashes.inc({ lane: this.#options.lane })
    this.#options.onRunning(false)
    const waitMs = this.#backoff.next()
    this.#log.warn('consumer has failed and begins anew', { cause: error, wait_ms: waitMs })
    this.#restart = this.#options.clock.after(waitMs, () => this.start())
  }

  #joined(consumer: Consumer, partitions: readonly number[]): void {
    const { topic, groupId, fetchCommitted, consumer: taker } = this.#options
    // Not every rejoin is announced: a stale view of the topic leads straight here.
    this.#endLeases()
    this.#backoff.reset()
    this.#seenAhead.clear()
    this.#committedAtStart = partitions.length > 0 ? fetchCommitted(groupId, topic) : Promise.resolve(new Map())
    // The first batch waits for it and fails with it.
    this.#committedAtStart.catch(() => undefined)
    // kafkajs keeps pauses over a rejoin; the new leases begin without.
    consumer.resume([{ topic }])
    for (const partition of partitions) this.#startLease(partition)
    this.#log.info('consumer has joined its group', { partitions: partitions.join(',') })
    this.#options.onRunning(true)
    for (const lease of [...this.#leases.values()]) taker.onLeaseStarted?.(lease)
  }

  #startLease(partition: number): KafkaLease {
    const { lane, nextGeneration, metrics } = this.#options
    const lease = new KafkaLease({ lane, partition, generation: nextGeneration() }, this)
    this.#leases.set(partition, lease)
    metrics.leases.set({ lane }, this.#leases.size)
    if (this.#holdAll) this.pauseChanged(lease)
    return lease
  }

  #endLeases(): void {
    const { lane, metrics, consumer } = this.#options
    const ended = [...this.#leases.values()]
    this.#leases = new Map()
    this.#commits.cancel()
    metrics.leases.set({ lane }, 0)
    metrics.stoppedPartitions.set({ lane }, 0)
    for (const lease of ended) {
      lease.end()
      consumer.onLeaseEnded?.(lease)
    }
  }

  // Records.

  /** Hands over one batch. An error goes to kafkajs as it is: REBALANCE_IN_PROGRESS among them must make it rejoin. */
  async onBatch(payload: EachBatchPayload): Promise<void> {
    const batch = payload.batch as FetchedBatch
    this.#commits.use(payload.commitOffsetsIfNecessary)
    let lease = this.#leases.get(batch.partition)
    if (!lease) return
    const fetchedOffset = BigInt(batch.fetchedOffset)
    if (lease.position === undefined) await this.#findStart(lease, fetchedOffset, payload)
    // Not resolved, so it is fetched again when the partition goes on.
    if (lease.ended.aborted || lease.held || this.#holdAll || lease.position === undefined) return
    if (fetchedOffset > lease.position && !this.#acceptAhead(lease, fetchedOffset)) return
    if (fetchedOffset < lease.position) lease = this.#startOver(lease, fetchedOffset)
    this.#handOver(lease, batch, payload)
  }

  async #findStart(lease: KafkaLease, fetchedOffset: bigint, payload: EachBatchPayload): Promise<void> {
    const committed = (await this.#committedAtStart).get(lease.partition) ?? -1n
    if (lease.ended.aborted || lease.position !== undefined) return
    if (committed >= 0n) {
      lease.startAt(committed)
      return
    }
    // The group has none here. Committed before anything is handed over: from now on the group's place is known to whoever comes next.
    await payload.commitOffsetsIfNecessary(placesOf(this.#options.topic, [{ partition: lease.partition, offset: fetchedOffset }]))
    if (lease.ended.aborted) return
    lease.startAt(fetchedOffset)
    if (this.#knownCommits.has(lease.partition)) this.#alarmReset(lease, 'group_vanished', fetchedOffset)
    this.#knownCommits.set(lease.partition, fetchedOffset)
  }

  /**
   * The partition was read from further on than it should. Once, it may be a batch that was fetched for an earlier generation: taking it would
   * leave out what lies between. Twice in a row, the log has nothing there any more.
   */
  #acceptAhead(lease: KafkaLease, fetchedOffset: bigint): boolean {
    if (this.#seenAhead.get(lease.partition) !== fetchedOffset) {
      this.#seenAhead.set(lease.partition, fetchedOffset)
      return false
    }
    this.#alarmReset(lease, 'records_gone', fetchedOffset)
    lease.jump(fetchedOffset)
    return true
  }

  /** The log begins again below what was handed over: the topic was made anew. Its offsets have nothing to do with those of this lease. */
  #startOver(lease: KafkaLease, fetchedOffset: bigint): KafkaLease {
    this.#alarmReset(lease, 'log_restarted', fetchedOffset)
    this.#leases.delete(lease.partition)
    lease.end()
    this.#options.consumer.onLeaseEnded?.(lease)
    const next = this.#startLease(lease.partition)
    next.startAt(fetchedOffset)
    this.#knownCommits.delete(lease.partition)
    this.#options.consumer.onLeaseStarted?.(next)
    return next
  }

  #alarmReset(lease: KafkaLease, cause: 'group_vanished' | 'records_gone' | 'log_restarted', offset: bigint): void {
    const { lane, metrics } = this.#options
    metrics.positionResets.inc({ lane, cause })
    const facts = { partition: lease.partition, cause_of_reset: cause, expected_offset: `${lease.position}`, offset: `${offset}` }
    const key = `reset/${lease.partition}/${cause}`
    if (this.#alarmed.has(key)) this.#log.info('partition is read from another place than the committed one', facts)
    else this.#log.error('partition is read from another place than the committed one', facts)
    this.#alarmed.add(key)
  }

  #handOver(lease: KafkaLease, batch: FetchedBatch, payload: EachBatchPayload): void {
    const { lane, consumer, metrics } = this.#options
    const records: QueueRecord[] = []
    let stop: Stop | undefined
    for (const message of batch.messages) {
      const undecodable = undecodableBatchOf(message)
      if (undecodable) {
        stop = { offset: BigInt(message.offset), ...undecodable }
        break
      }
      records.push({
        lane,
        partition: batch.partition,
        offset: BigInt(message.offset),
        key: message.key?.toString() ?? '',
        // A copy: a record that is held for long must not keep the megabyte that it was fetched with.
        value: Buffer.from(message.value ?? []),
        timestampMs: Number(message.timestamp),
      })
    }
    const last = records.at(-1)
    if (last) {
      // Resolved at hand-over: what is not resolved is fetched again at once, over and over. Progress is told by commits alone.
      payload.resolveOffset(`${last.offset}`)
      lease.advance(stop ? last.offset + 1n : BigInt(batch.lastOffset()) + 1n)
      metrics.handedOver.inc({ lane }, records.length)
      consumer.onRecords(lease, records)
    }
    if (stop && !lease.ended.aborted) this.#stopPartition(lease, stop)
  }

  #stopPartition(lease: KafkaLease, stop: Stop): void {
    const skipped = this.#skips.get(`${lease.partition}/${stop.offset}`)
    if (skipped) {
      this.#passOver(lease, skipped)
      return
    }
    lease.stopAt(stop)
    this.#countStopped()
    const key = `stop/${lease.partition}/${stop.offset}`
    if (this.#alarmed.has(key)) return
    this.#alarmed.add(key)
    this.#log.error('partition is stopped: a batch cannot be decoded; skip it, or read it by other means first', {
      partition: lease.partition,
      offset: `${stop.offset}`,
      last_offset: `${stop.lastOffset}`,
      problem: stop.problem,
    })
  }

  #passOver(lease: KafkaLease, stop: Stop): void {
    const goOnAt = lease.passOver(stop)
    this.#kafkaConsumer?.seek({ topic: this.#options.topic, partition: lease.partition, offset: `${goOnAt}` })
    this.#countStopped()
    this.#log.warn('undecodable batch is passed over', {
      partition: lease.partition,
      offset: `${stop.offset}`,
      last_offset: `${stop.lastOffset}`,
    })
  }

  #countStopped(): void {
    const { lane, metrics } = this.#options
    metrics.stoppedPartitions.set({ lane }, [...this.#leases.values()].filter((lease) => lease.stop).length)
  }
}
