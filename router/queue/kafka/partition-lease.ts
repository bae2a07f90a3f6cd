import type { Lane, PartitionLease } from '../message-queue.ts'

/** What a lease asks of the consumer that gave it. */
export interface LeaseHolder {
  /** Something is to be committed. */
  commitSoon(): void
  /** The lease wants to be fetched from, or not. */
  pauseChanged(lease: KafkaLease): void
}

/** Where and why a partition stands still. */
export interface Stop {
  readonly offset: bigint
  /** The last offset that cannot be decoded. */
  readonly lastOffset: bigint
  readonly problem: string
}

/** One ownership of one partition, and how far it has got. Knows nothing of kafkajs. */
export class KafkaLease implements PartitionLease {
  readonly lane: Lane
  readonly partition: number
  readonly generation: number
  readonly #holder: LeaseHolder
  readonly #end = new AbortController()
  #paused = false
  #stop: Stop | undefined
  /** The next offset to be handed over; undefined until the start is known. */
  #position: bigint | undefined
  #handedOver = false
  #wanted = -1n
  #committed = -1n
  /** Offsets passed over by an operator: who is done below `from` is done below `to`. */
  #skipped: { readonly from: bigint; readonly to: bigint } | undefined

  constructor(place: { lane: Lane; partition: number; generation: number }, holder: LeaseHolder) {
    this.lane = place.lane
    this.partition = place.partition
    this.generation = place.generation
    this.#holder = holder
  }

  get ended(): AbortSignal {
    return this.#end.signal
  }

  get position(): bigint | undefined {
    return this.#position
  }

  get stop(): Stop | undefined {
    return this.#stop
  }

  /** Whether nothing shall be fetched or handed over. */
  get held(): boolean {
    return this.#paused || this.#stop !== undefined
  }

  /** Where the lease begins, and what the group has committed there. */
  startAt(position: bigint): void {
    this.#position = position
    this.#committed = position
  }

  /** Moves on behind records that have been handed over. */
  advance(position: bigint): void {
    this.#position = position
    this.#handedOver = true
  }

  /** The log has nothing up to there. */
  jump(position: bigint): void {
    this.#position = position
  }

  stopAt(stop: Stop): void {
    this.#stop = stop
    this.#holder.pauseChanged(this)
  }

  /** Goes on behind the stop. Returns the offset to go on from. */
  passOver(stop: Stop): bigint {
    const to = stop.lastOffset + 1n
    const from = this.#position ?? stop.offset
    this.#skipped = { from: this.#skipped?.to === from ? this.#skipped.from : from, to }
    this.#stop = undefined
    this.#position = to
    // Where all that came before is done already, nobody would ever speak of it again.
    if (!this.#handedOver || this.#wanted >= from) this.commitBelow(to)
    this.#holder.pauseChanged(this)
    return to
  }

  commitBelow(offset: bigint): void {
    if (this.#end.signal.aborted) return
    const skipped = this.#skipped
    const reached = skipped && offset >= skipped.from && offset < skipped.to ? skipped.to : offset
    if (reached <= this.#wanted) return
    this.#wanted = reached
    if (this.#wanted > this.#committed) this.#holder.commitSoon()
  }

  /** The offset to commit; undefined when there is nothing new. */
  get uncommitted(): bigint | undefined {
    return !this.#end.signal.aborted && this.#wanted > this.#committed ? this.#wanted : undefined
  }

  markCommitted(offset: bigint): void {
    if (offset > this.#committed) this.#committed = offset
  }

  pause(): void {
    if (this.#paused || this.#end.signal.aborted) return
    this.#paused = true
    this.#holder.pauseChanged(this)
  }

  resume(): void {
    if (!this.#paused || this.#end.signal.aborted) return
    this.#paused = false
    this.#holder.pauseChanged(this)
  }

  end(): void {
    this.#end.abort()
  }
}
