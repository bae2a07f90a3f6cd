import type { PartitionLease, QueueConsumer, QueueRecord } from '../message-queue.ts'

/** A consumer that keeps what it is given, for tests to wait for. */
export class RecordTaker implements QueueConsumer {
  readonly records: QueueRecord[] = []
  /** Which lease each record came with, by index. */
  readonly leaseOf: PartitionLease[] = []
  readonly started: PartitionLease[] = []
  readonly ended: PartitionLease[] = []
  /** Runs for each batch before anyone who waits is told. */
  onBatch: ((lease: PartitionLease, records: readonly QueueRecord[]) => void) | undefined
  #waiters: Array<() => void> = []

  onRecords(lease: PartitionLease, records: readonly QueueRecord[]): void {
    for (const record of records) {
      this.records.push(record)
      this.leaseOf.push(lease)
    }
    this.onBatch?.(lease, records)
    this.#wake()
  }

  onLeaseStarted(lease: PartitionLease): void {
    this.started.push(lease)
    this.#wake()
  }

  onLeaseEnded(lease: PartitionLease): void {
    this.ended.push(lease)
    this.#wake()
  }

  get texts(): string[] {
    return this.records.map((record) => textOf(record))
  }

  /** Resolves as soon as it holds; looked at after each call. Rejects with what was there instead. */
  async until(holds: (taker: this) => boolean, timeoutMs = 20_000): Promise<void> {
    const deadline = AbortSignal.timeout(timeoutMs)
    while (!holds(this)) {
      await new Promise<void>((resolve, reject) => {
        const late = () =>
          reject(new Error(`waited in vain for ${holds}; there are ${this.records.length}: ${this.texts.slice(0, 40)}`))
        if (deadline.aborted) late()
        deadline.addEventListener('abort', late, { once: true })
        this.#waiters.push(() => {
          deadline.removeEventListener('abort', late)
          resolve()
        })
      })
    }
  }

  /** Resolves when so many records are here. */
  count(count: number, timeoutMs?: number): Promise<void> {
    return this.until((taker) => taker.records.length >= count, timeoutMs)
  }

  /** The lease that handed over this text last. */
  leaseWith(text: string): PartitionLease {
    const lease = this.leaseOf[this.texts.lastIndexOf(text)]
    if (!lease) throw new Error(`${text} was not handed over`)
    return lease
  }

  offsetOf(text: string): bigint {
    const record = this.records.find((candidate) => textOf(candidate) === text)
    if (!record) throw new Error(`${text} was not handed over`)
    return record.offset
  }

  #wake(): void {
    const waiters = this.#waiters
    this.#waiters = []
    for (const waiter of waiters) waiter()
  }
}

export function textOf(record: { readonly value: Uint8Array }): string {
  return Buffer.from(record.value).toString()
}

export function bytesOf(text: string): Uint8Array {
  return Buffer.from(text)
}
