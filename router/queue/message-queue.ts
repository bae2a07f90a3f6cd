/**
 * The queue between a publisher's call and dispatch: three lanes, one for each priority, each in partitions. Kafka carries it in production,
 * a SQLite file on a laptop; `message-queue.suite.ts` says what both keep.
 *
 * A record is handed over at least once. It is handed over again after a rebalance, a restart or a crash, unless its offset lies below what
 * was committed by then. Within one lease no offset is handed over twice; the same offset may come again with the next lease of the
 * partition, also while this process still works on it: who consumes joins it with the entry it has.
 */
export interface MessageQueue {
  /**
   * Resolves once the record is durable (acks=all on Kafka, fsync in the file). Records of one key keep the order of the calls. Whatever waits
   * at the tick goes out together. The caller must not change `value` until then.
   *
   * Rejects with a PushError: BACKLOG_FULL when too many records or bytes wait (this one is not kept), QUEUE_UNAVAILABLE when the queue cannot
   * take it. After a QUEUE_UNAVAILABLE that came while the record was on its way, the record may be in the queue all the same.
   */
  publish(record: OutgoingRecord): Promise<void>
  /** Puts a record on `push.dead-letter`; `value` is an encoded `push.internal.v1.DeadLetter`. Same promise and errors as `publish`. */
  publishDeadLetter(key: string, value: Uint8Array): Promise<void>
  /**
   * Puts a copy of a receipt on `push.receipts`; `value` is an encoded `push.internal.v1.Receipt`. Same errors as `publish`. A queue that
   * nobody but its own process can read keeps no copies.
   */
  publishReceipt(key: string, value: Uint8Array): Promise<void>
  /**
   * Puts a record on `push.audit`; `value` is an encoded `push.internal.v1.AuditRecord`. Same promise and errors as `publish`: it is durable when this
   * has resolved.
   */
  publishAudit(key: string, value: Uint8Array): Promise<void>
  /**
   * Reads dead letters in the order of their positions: partition by partition, in each the oldest first. A page ends before `limit` (1 to 1,000)
   * where the letters have more than 16 MiB together. Rejects with QUEUE_UNAVAILABLE, also when it takes too long. On Kafka it takes seconds
   * and a consumer of its own, so callers see to it that few run at once.
   */
  listDeadLetters(page: { readonly after?: DeadLetterPosition | undefined; readonly limit: number }): Promise<DeadLetterPage>
  /**
   * Reads the dead letters at these positions, at most 1,000; those that are not there any more are left out. The order is that of
   * `listDeadLetters`. Rejects with INVALID_REQUEST when they have more than 64 MiB together, else as `listDeadLetters`.
   */
  readDeadLetters(positions: readonly DeadLetterPosition[]): Promise<readonly StoredDeadLetter[]>
  /** Removes the dead letters put there before that time (ms since the epoch), and says how many. Rejects with QUEUE_UNAVAILABLE. */
  purgeDeadLettersBefore(timeMs: number): Promise<number>
  /** Starts all lanes. Once only. Resolves when consuming is arranged, not when the queue is reachable: see `state`. */
  consume(consumer: QueueConsumer): Promise<void>
  /**
   * Leaves in order: stops fetching on all lanes, runs `settle` (which brings what is in flight to its end, within a bound of its own, while
   * the leases still live and commits still count), commits, ends the leases, leaves. Resolves at once where nothing is consumed.
   * Publishing goes on until `close`.
   */
  stopConsuming(settle: () => Promise<void>): Promise<void>
  /**
   * Passes over a record or batch that stopped its partition because it cannot be decoded: the partition goes on behind it. `offset` is the one
   * that log and alarm name; returns false, and changes nothing, if the partition is not stopped at that offset in this process.
   */
  skip(lane: Lane, partition: number, offset: bigint): Promise<boolean>
  /** `starting` until the queue has answered for the first time; `unavailable` while publish would be refused. */
  readonly state: QueueState
  /** Why the queue is not ready, for people to read; undefined while it is. */
  readonly stateReason: string | undefined
  /** Calls `listener` after each change. Returns what takes it away again. */
  onStateChange(listener: (state: QueueState) => void): () => void
  /** Leaves without settling (what is in flight is handed over again to the next owner), sends what waits, then closes everything. */
  close(): Promise<void>
}

export type QueueState = 'starting' | 'ready' | 'unavailable'

/** One for each priority; each is a topic, a consumer and a consumer group of its own, so that a slow lane cannot hold up another. */
export type Lane = 'high' | 'normal' | 'low'

export const lanes: readonly Lane[] = ['high', 'normal', 'low']

export interface OutgoingRecord {
  readonly lane: Lane
  /** The device id, or the account id: records of one key keep their order. Not empty. */
  readonly key: string
  /** An encoded `push.internal.v1.QueuedMessage`. */
  readonly value: Uint8Array
}

/** Where a dead letter lies. */
export interface DeadLetterPosition {
  readonly partition: number
  readonly offset: bigint
}

export interface StoredDeadLetter extends DeadLetterPosition {
  /** The device id, or the account id, or whatever key its record had. */
  readonly key: string
  /** An encoded `push.internal.v1.DeadLetter`. */
  readonly value: Uint8Array
  /** When it was put there, in ms since the epoch, by the clock of who put it. */
  readonly timestampMs: number
  /** Why it cannot be read back; `value` is empty then. */
  readonly problem: string | undefined
}

export interface DeadLetterPage {
  readonly letters: readonly StoredDeadLetter[]
  /** There are more after the last of them. */
  readonly more: boolean
}

export interface QueueRecord {
  readonly lane: Lane
  readonly partition: number
  /** Rises within a partition, with gaps. A bigint, as Kafka's offsets are int64. */
  readonly offset: bigint
  /** Empty where a foreign producer sent none. */
  readonly key: string
  readonly value: Uint8Array
  /** When the record was produced, in ms since the epoch. */
  readonly timestampMs: number
}

/** One ownership of one partition by this process. It is over at a rebalance, a crash of the consumer, or when consuming stops. */
export interface PartitionLease {
  readonly lane: Lane
  readonly partition: number
  /** Counts the leases that this process was given, over all lanes: a later lease has the higher number. */
  readonly generation: number
  /** Aborts when the lease is over. Nothing is handed over with it, and nothing it says is committed, from then on. */
  readonly ended: AbortSignal
  /**
   * Says that everything below `offset` is done and need not be handed over again. Only the highest value counts; it is written within a
   * fraction of a second, together with others. Does nothing after `ended`: another owner's progress is never moved.
   */
  commitBelow(offset: bigint): void
  /** Back-pressure: from the next batch on nothing is handed over, and nothing fetched, until `resume`. The lease lives on. */
  pause(): void
  resume(): void
}

/** What dispatch gives to `consume`. None of these may throw or block. */
export interface QueueConsumer {
  /** Takes over the records of one batch, in order of offset, at least one. Returns at once: it is a hand-over, not their completion. */
  onRecords(lease: PartitionLease, records: readonly QueueRecord[]): void
  /** Before the first `onRecords` of a lease. */
  onLeaseStarted?(lease: PartitionLease): void
  /** Once for each lease, right after `ended` has aborted. */
  onLeaseEnded?(lease: PartitionLease): void
}
