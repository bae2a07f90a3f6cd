import type { Lane, PartitionLease } from '../message-queue.ts'

/** One partition of the file, from the start of consuming to its end. */
export class EmbeddedLease implements PartitionLease {
  readonly lane: Lane
  readonly partition: number
  readonly generation: number
  readonly #end = new AbortController()
  readonly #onChange: () => void
  /** The next offset to be handed over. */
  position: bigint
  paused = false
  #wanted: bigint
  #committed: bigint

  /** `onChange`: there is something to commit, or to read. */
  constructor(place: { lane: Lane; partition: number; generation: number; committed: bigint }, onChange: () => void) {
    this.lane = place.lane
    this.partition = place.partition
    this.generation = place.generation
    this.position = place.committed
    this.#wanted = place.committed
    this.#committed = place.committed
    this.#onChange = onChange
  }

  get ended(): AbortSignal {
    return this.#end.signal
  }

  commitBelow(offset: bigint): void {
    if (this.#end.signal.aborted || offset <= this.#wanted) return
    this.#wanted = offset
    this.#onChange()
  }

  /** The offset to commit; undefined when there is nothing new. */
  get uncommitted(): bigint | undefined {
    return !this.#end.signal.aborted && this.#wanted > this.#committed ? this.#wanted : undefined
  }

  markCommitted(offset: bigint): void {
    this.#committed = offset
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.#onChange()
  }

  end(): void {
    this.#end.abort()
  }
}
