import type { Clock, Timer } from '../../../service-kit/clock.ts'
import { PushError } from '../../../service-kit/errors.ts'
import type { Log } from '../../../service-kit/log.ts'
import type { Metrics } from '../../../service-kit/metrics.ts'
import { deadLetterPageBytesMax, deadLetterReadBytesMax, tooManyDeadLetters } from '../dead-letter-bounds.ts'
import {
  type DeadLetterPage,
  type DeadLetterPosition,
  lanes,
  type MessageQueue,
  type OutgoingRecord,
  type QueueConsumer,
  type StoredDeadLetter,
} from '../message-queue.ts'
import { createOutgoingBuffer, type OutgoingBuffer } from '../outgoing-buffer.ts'
import { type QueueMetrics, queueMetrics } from '../queue-metrics.ts'
import { QueueStatus } from '../queue-status.ts'
import { EmbeddedLease } from './embedded-lease.ts'
import { type LetterInFile, openQueueFile, partitionCount, type QueueFile, type StoredRecord } from './queue-file.ts'

export interface EmbeddedQueueOptions {
  /** The SQLite file; created with its tables if it is not there. Its folder must be. */
  readonly path: string
  readonly log: Log
  readonly metrics: Metrics
  readonly clock: Clock
  readonly bounds?: Partial<EmbeddedQueueBounds>
}

export interface EmbeddedQueueBounds {
  /** Records in the file that are not committed; at this many, publish answers BACKLOG_FULL. Default 1_000_000. */
  readonly storedRecordsMax: number
  /** Records that wait for the next fsync. Default 50_000. */
  readonly backlogRecordsMax: number
  /** Their bytes. Default 64 MiB. */
  readonly backlogBytesMax: number
  /** Bytes of one record, key included. Default 700 KiB, as on Kafka. */
  readonly recordBytesMax: number
  /** Records of one fsync. Default 2_000. */
  readonly batchRecordsMax: number
  /** How long commits are gathered when nothing is published meanwhile, ms. Default 50. */
  readonly commitIntervalMs: number
  /** Records handed over at once. Default 500. */
  readonly handOverMax: number
  /** How long a file that could not be read is left alone, ms. Default 1_000. */
  readonly readAgainMs: number
  /** Dead letters kept; the oldest go first. Default 10_000. */
  readonly deadLettersMax: number
  /** Audit records kept; the oldest go first. Default 100_000. */
  readonly auditRecordsMax: number
}

export const embeddedQueueDefaults: EmbeddedQueueBounds = {
  storedRecordsMax: 1_000_000,
  backlogRecordsMax: 50_000,
  backlogBytesMax: 64 * 1024 * 1024,
  recordBytesMax: 700 * 1024,
  batchRecordsMax: 2_000,
  commitIntervalMs: 50,
  handOverMax: 500,
  readAgainMs: 1_000,
  deadLettersMax: 10_000,
  auditRecordsMax: 100_000,
}

type Outgoing =
  | { readonly kind: 'record'; readonly record: StoredRecord }
  | { readonly kind: 'dead'; readonly letter: LetterInFile }
  | { readonly kind: 'audit'; readonly audit: LetterInFile }

/** The queue in a file, for one process. */
export interface EmbeddedQueue extends MessageQueue {
  /** What lies on the dead-letter topic, oldest first. */
  deadLetters(): readonly LetterInFile[]
  /** What lies on the audit topic, oldest first. */
  auditRecords(): readonly LetterInFile[]
}

/**
 * Opens the queue on a SQLite file. It promises what the one on Kafka does and no more: at least once, in order for each key, durable when
 * publish resolves. Throws QueueFileError when the file cannot be used or another process has it. The caller closes it.
 */
export function openEmbeddedQueue(options: EmbeddedQueueOptions): EmbeddedQueue {
  return embeddedQueueOn(openQueueFile(options.path), options)
}

/** The same on a file that is open already; the queue closes it. */
export function embeddedQueueOn(file: QueueFile, options: EmbeddedQueueOptions): EmbeddedQueue {
  return new FileQueue(options, file)
}

class FileQueue implements EmbeddedQueue {
  readonly #options: EmbeddedQueueOptions
  readonly #bounds: EmbeddedQueueBounds
  readonly #file: QueueFile
  readonly #metrics: QueueMetrics
  readonly #status: QueueStatus
  readonly #buffer: OutgoingBuffer<Outgoing>
  #storedCount: number
  #consumer: QueueConsumer | undefined
  #leases: EmbeddedLease[] = []
  #generation = 0
  #consumed = false
  #stopping = false
  #closed = false
  #commitTimer: Timer | undefined
  #handOverTick: NodeJS.Immediate | undefined
  #readAgain: Timer | undefined

  constructor(options: EmbeddedQueueOptions, file: QueueFile) {
    const bounds: EmbeddedQueueBounds = { ...embeddedQueueDefaults, ...options.bounds }
    this.#options = options
    this.#bounds = bounds
    this.#file = file
    this.#metrics = queueMetrics(options.metrics)
    this.#status = new QueueStatus(options.log, this.#metrics)
    this.#storedCount = file.recordCount()
    this.#buffer = createOutgoingBuffer<Outgoing>({
      send: async (batch) => this.#write(batch),
      sizeOf: (outgoing) => sizeOf(contentOf(outgoing)),
      recordCountMax: bounds.backlogRecordsMax,
      bytesMax: bounds.backlogBytesMax,
      batchCountMax: bounds.batchRecordsMax,
      batchBytesMax: bounds.backlogBytesMax,
      lingerMs: 0,
      clock: options.clock,
      metrics: this.#metrics,
    })
    this.#status.answered()
    this.#status.set(undefined)
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
    this.#check(key, value)
    if (this.#storedCount >= this.#bounds.storedRecordsMax) {
      this.#metrics.backlogFull.inc()
      throw new PushError(
        'BACKLOG_FULL',
        'the queue file holds as many messages as it may; publish again later',
        {},
        { retryAfterMs: 1_000 },
      )
    }
    const record = { lane, partition: partitionOf(key), key, value, timestampMs: this.#options.clock.now() }
    await this.#buffer.add({ kind: 'record', record })
    this.#metrics.published.inc({ lane })
  }

  async publishDeadLetter(key: string, value: Uint8Array): Promise<void> {
    this.#check(key, value)
    await this.#buffer.add({ kind: 'dead', letter: { key, value, timestampMs: this.#options.clock.now() } })
  }

  /** Nobody else reads this file, so there is nobody whom a copy would serve. */
  async publishReceipt(): Promise<void> {}

  async publishAudit(key: string, value: Uint8Array): Promise<void> {
    this.#check(key, value)
    await this.#buffer.add({ kind: 'audit', audit: { key, value, timestampMs: this.#options.clock.now() } })
  }

  deadLetters(): readonly LetterInFile[] {
    return [...this.#file.deadLetters()]
  }

  auditRecords(): readonly LetterInFile[] {
    return this.#file.auditRecords()
  }

  async listDeadLetters({ after, limit }: { after?: DeadLetterPosition | undefined; limit: number }): Promise<DeadLetterPage> {
    return this.#withDeadLetters('read', () => {
      if (after && after.partition > deadLetterPartition) return { letters: [], more: false }
      const letters: StoredDeadLetter[] = []
      let size = 0
      for (const letter of this.#file.deadLetters(after?.offset)) {
        size += letter.value.byteLength
        if (letters.length === limit || (letters.length > 0 && size > deadLetterPageBytesMax)) return { letters, more: true }
        letters.push(stored(letter))
      }
      return { letters, more: false }
    })
  }

  async readDeadLetters(positions: readonly DeadLetterPosition[]): Promise<readonly StoredDeadLetter[]> {
    return this.#withDeadLetters('read', () => {
      const letters: StoredDeadLetter[] = []
      let size = 0
      for (const { partition, offset } of positions.toSorted((one, other) => (one.offset < other.offset ? -1 : 1))) {
        const letter = partition === deadLetterPartition ? this.#file.deadLetterAt(offset) : undefined
        if (!letter) continue
        size += letter.value.byteLength
        if (size > deadLetterReadBytesMax) throw tooManyDeadLetters()
        letters.push(stored(letter))
      }
      return letters
    })
  }

  async purgeDeadLettersBefore(timeMs: number): Promise<number> {
    return this.#withDeadLetters('removed', () => this.#file.removeDeadLettersBefore(timeMs))
  }

  #withDeadLetters<T>(verb: string, use: () => T): T {
    if (this.#closed) throw unavailable('it is closed')
    try {
      return use()
    } catch (error) {
      if (error instanceof PushError) throw error
      this.#options.log.error(`dead letters cannot be ${verb}`, { path: this.#options.path, cause: error })
      throw unavailable(`dead letters cannot be ${verb}`, error)
    }
  }

  async consume(consumer: QueueConsumer): Promise<void> {
    if (this.#consumed) throw new Error('the queue is consumed already')
    this.#consumed = true
    this.#consumer = consumer
    for (const lane of lanes) {
      for (let partition = 0; partition < partitionCount; partition++) {
        const committed = this.#file.committed(lane, partition)
        const lease = new EmbeddedLease({ lane, partition, generation: ++this.#generation, committed }, () =>
          this.#leaseChanged(),
        )
        this.#leases.push(lease)
      }
      this.#metrics.leases.set({ lane }, partitionCount)
    }
    for (const lease of this.#leases) consumer.onLeaseStarted?.(lease)
    this.#handOverSoon()
  }

  async stopConsuming(settle: () => Promise<void>): Promise<void> {
    if (this.#leases.length === 0 || this.#stopping) return
    this.#stopping = true
    await settle()
    this.#writeCommits()
    this.#endLeases()
  }

  /** Nothing in this file is undecodable to the queue itself. */
  async skip(): Promise<boolean> {
    return false
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#endLeases()
    this.#closed = true
    await this.#buffer.drained()
    this.#status.close()
    this.#file.close()
  }

  #check(key: string, value: Uint8Array): void {
    if (this.#closed) throw unavailable('it is closed')
    if (sizeOf({ key, value }) > this.#bounds.recordBytesMax) {
      throw new PushError('PAYLOAD_TOO_LARGE', `a record of ${value.byteLength} bytes is larger than the queue takes`)
    }
  }

  /** One transaction for all that waits, commits included. */
  #write(batch: readonly Outgoing[]): void {
    const records = batch.flatMap((outgoing) => (outgoing.kind === 'record' ? [outgoing.record] : []))
    const deadLetters = batch.flatMap((outgoing) => (outgoing.kind === 'dead' ? [outgoing.letter] : []))
    const auditRecords = batch.flatMap((outgoing) => (outgoing.kind === 'audit' ? [outgoing.audit] : []))
    const due = this.#leases.flatMap((lease) => {
      const offset = lease.uncommitted
      return offset === undefined ? [] : [{ lease, lane: lease.lane, partition: lease.partition, offset }]
    })
    try {
      const removed = this.#file.write({
        records,
        deadLetters,
        auditRecords,
        commits: due,
        deadLetterCountMax: this.#bounds.deadLettersMax,
        auditRecordCountMax: this.#bounds.auditRecordsMax,
      })
      this.#storedCount += records.length - removed
    } catch (error) {
      this.#metrics.publishFailures.inc()
      this.#options.log.error('queue file cannot be written', { path: this.#options.path, cause: error })
      this.#status.set('the queue file cannot be written')
      throw unavailable('its file cannot be written', error)
    }
    this.#status.set(undefined)
    for (const { lease, offset } of due) {
      lease.markCommitted(offset)
      this.#metrics.commits.inc({ lane: lease.lane })
    }
    if (records.length > 0) this.#handOverSoon()
  }

  #writeCommits(): void {
    if (!this.#leases.some((lease) => lease.uncommitted !== undefined)) return
    try {
      this.#write([])
    } catch {
      // Logged and counted; what is not committed is handed over again after a restart.
      for (const lane of lanes) this.#metrics.commitFailures.inc({ lane })
      if (!this.#stopping) this.#commitSoon()
    }
  }

  #leaseChanged(): void {
    this.#handOverSoon()
    this.#commitSoon()
  }

  #commitSoon(): void {
    if (this.#commitTimer || this.#leases.length === 0) return
    this.#commitTimer = this.#options.clock.after(this.#bounds.commitIntervalMs, () => {
      this.#commitTimer = undefined
      this.#writeCommits()
    })
  }

  #handOverSoon(): void {
    if (this.#handOverTick || !this.#consumer || this.#stopping) return
    this.#handOverTick = setImmediate(() => {
      this.#handOverTick = undefined
      try {
        this.#handOver()
      } catch (error) {
        this.#options.log.error('queue file cannot be read', { path: this.#options.path, cause: error })
        this.#status.set('the queue file cannot be read')
        this.#readAgain ??= this.#options.clock.after(this.#bounds.readAgainMs, () => {
          this.#readAgain = undefined
          this.#handOverSoon()
        })
      }
    })
  }

  #handOver(): void {
    let more = false
    for (const lease of this.#leases) {
      if (lease.paused || this.#stopping) continue
      const records = this.#file.read(lease.lane, lease.partition, lease.position, this.#bounds.handOverMax)
      const last = records.at(-1)
      if (!last) continue
      lease.position = last.offset + 1n
      more ||= records.length === this.#bounds.handOverMax
      this.#metrics.handedOver.inc({ lane: lease.lane }, records.length)
      this.#consumer?.onRecords(lease, records)
    }
    if (more) this.#handOverSoon()
  }

  #endLeases(): void {
    this.#stopping = true
    this.#commitTimer?.cancel()
    this.#commitTimer = undefined
    this.#readAgain?.cancel()
    if (this.#handOverTick) clearImmediate(this.#handOverTick)
    this.#handOverTick = undefined
    const ended = this.#leases
    this.#leases = []
    for (const lane of lanes) this.#metrics.leases.set({ lane }, 0)
    for (const lease of ended) {
      lease.end()
      this.#consumer?.onLeaseEnded?.(lease)
    }
  }
}

function contentOf(outgoing: Outgoing): { readonly key: string; readonly value: Uint8Array } {
  if (outgoing.kind === 'record') return outgoing.record
  return outgoing.kind === 'dead' ? outgoing.letter : outgoing.audit
}

/** The file has one partition of dead letters. */
const deadLetterPartition = 0

function stored(letter: LetterInFile & { readonly offset: bigint }): StoredDeadLetter {
  return { ...letter, partition: deadLetterPartition, problem: undefined }
}

function unavailable(reason: string, cause?: unknown): PushError {
  return new PushError(
    'QUEUE_UNAVAILABLE',
    `the queue is unavailable: ${reason}`,
    {},
    { retryAfterMs: 1_000, ...(cause ? { cause } : {}) },
  )
}

function sizeOf({ key, value }: { readonly key: string; readonly value: Uint8Array }): number {
  return key.length + value.byteLength
}

/** FNV-1a over the key. Part of the file's format, like the number of partitions. */
export function partitionOf(key: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193)
  return (hash >>> 0) % partitionCount
}
