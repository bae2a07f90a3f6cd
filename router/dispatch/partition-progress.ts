/**
 * How far one ownership of one partition has got. Offsets have gaps (compaction, transactions), so what counts is the lowest offset that was
 * *received* and is not done: everything below it may be committed.
 */
export class PartitionProgress {
  /** Received and not done, in the order received, which is the order of offsets. */
  readonly #open = new Map<bigint, { done: boolean }>()
  #next: bigint | undefined

  /** Takes note of a record. Offsets come in rising order; one that has been received before is ignored, and false is returned. */
  receive(offset: bigint): boolean {
    if (this.#next !== undefined && offset < this.#next) return false
    this.#open.set(offset, { done: false })
    this.#next = offset + 1n
    return true
  }

  /**
   * Takes note that a record needs no next step any more.
   * Returns the offset below which everything is done if that has risen, else undefined.
   */
  finish(offset: bigint): bigint | undefined {
    const entry = this.#open.get(offset)
    if (!entry) return undefined
    entry.done = true
    let risen = false
    for (const [lowest, { done }] of this.#open) {
      if (!done) return risen ? lowest : undefined
      this.#open.delete(lowest)
      risen = true
    }
    return risen ? this.#next : undefined
  }

  /** Records received and not yet below the low-water mark. */
  get openCount(): number {
    return this.#open.size
  }
}
