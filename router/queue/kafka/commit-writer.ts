import type { EachBatchPayload } from 'kafkajs'
import type { Clock, Timer } from '../../../service-kit/clock.ts'
import type { Log } from '../../../service-kit/log.ts'
import type { Lane } from '../message-queue.ts'
import type { QueueMetrics } from '../queue-metrics.ts'
import type { KafkaLease } from './partition-lease.ts'

/** Commits exactly what it is given, once, under the generation of the moment it is called. */
export type CommitCall = EachBatchPayload['commitOffsetsIfNecessary']

export interface CommitWriterOptions {
  readonly lane: Lane
  readonly topic: string
  /** How long commits are gathered, ms. */
  readonly intervalMs: number
  /** Those that live. */
  readonly leases: () => readonly KafkaLease[]
  readonly onCommitted: (lease: KafkaLease, offset: bigint) => void
  readonly log: Log
  readonly metrics: QueueMetrics
  readonly clock: Clock
}

const nowAttempts = 3

/** Writes what the living leases of one lane want committed. */
export class CommitWriter {
  readonly #options: CommitWriterOptions
  #call: CommitCall | undefined
  #timer: Timer | undefined
  #writing: Promise<void> | undefined

  constructor(options: CommitWriterOptions) {
    this.#options = options
  }

  /**
   * Has commits go by this call of a batch. Not by the consumer's own commitOffsets: that one repeats a failed commit by itself, under whatever
   * generation it has by then, and Kafka takes it also for a partition that is another member's by now, whose progress would go back. The
   * batch's call goes the same way, with neither repetition nor, given offsets, a choice of its own.
   */
  use(call: CommitCall | undefined): void {
    this.#call = call
  }

  /** Something is to be committed. */
  soon(): void {
    this.#timer ??= this.#options.clock.after(this.#options.intervalMs, () => {
      this.#timer = undefined
      void this.#write()
    })
  }

  /** Writes at once. Never throws: what cannot be written is handed over again. */
  async now(): Promise<void> {
    for (let attempt = 0; attempt < nowAttempts; attempt++) {
      await this.#writing
      // From a timer, so that no rejoin stands half done between the new generation and the end of our leases.
      await this.#options.clock.sleep(0)
      await this.#write()
      if (!this.#anythingDue()) return
    }
  }

  /** Forgets what was to be written soon; the leases are over. */
  cancel(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }

  /** One attempt. */
  async #write(): Promise<void> {
    const { lane, topic, leases, onCommitted, metrics, log } = this.#options
    const due = leases().flatMap((lease) => {
      const offset = lease.uncommitted
      return offset === undefined ? [] : [{ lease, partition: lease.partition, offset }]
    })
    if (this.#writing || !this.#call || due.length === 0) return
    this.#writing = this.#call(placesOf(topic, due)).then(
      () => {
        metrics.commits.inc({ lane })
        for (const { lease, offset } of due) {
          lease.markCommitted(offset)
          if (!lease.ended.aborted) onCommitted(lease, offset)
        }
      },
      (error: unknown) => {
        metrics.commitFailures.inc({ lane })
        log.debug('commit has failed', { cause: error })
      },
    )
    await this.#writing
    this.#writing = undefined
    if (this.#anythingDue()) this.soon()
  }

  #anythingDue(): boolean {
    return this.#options.leases().some((lease) => lease.uncommitted !== undefined)
  }
}

/** Offsets of one topic as kafkajs takes them. */
export function placesOf(topic: string, places: ReadonlyArray<{ readonly partition: number; readonly offset: bigint }>) {
  return { topics: [{ topic, partitions: places.map(({ partition, offset }) => ({ partition, offset: `${offset}` })) }] }
}
