import type { Entry } from './entry.ts'

/** Messages written to one device and not yet answered, at most. */
export const pendingMax = 64
/** So many of them are kept for HIGH and RECOVERY. */
export const pendingReserved = 16

/**
 * The messages of one session from their acceptance on, by id: so that a second delivery joins the first instead of being written
 * again. Counts those that are written and not answered.
 */
export class Pending {
  readonly #entries = new Map<string, Entry>()
  #writtenCount = 0
  #ordinaryCount = 0
  #fullSince: number | undefined

  /** Entries, written or not. */
  get size(): number {
    return this.#entries.size
  }

  /** Messages that are written and not answered. */
  unanswered(): Set<string> {
    const ids = new Set<string>()
    for (const entry of this.#entries.values()) if (entry.written !== undefined) ids.add(entry.messageId)
    return ids
  }

  get writtenCount(): number {
    return this.#writtenCount
  }

  /** Since when (monotonic, ms) no other message than HIGH or RECOVERY could be written; undefined when one can. */
  get fullSince(): number | undefined {
    return this.#fullSince
  }

  find(messageId: string): Entry | undefined {
    return this.#entries.get(messageId)
  }

  add(entry: Entry): void {
    this.#entries.set(entry.messageId, entry)
  }

  /** Whether one more may be written. */
  hasPlace(reserved: boolean): boolean {
    return this.#writtenCount < pendingMax && (reserved || this.#ordinaryCount < pendingMax - pendingReserved)
  }

  /** The entry's `written` is set; it holds a place from now on. */
  wrote(entry: Entry, nowMs: number): void {
    this.#count(entry, 1)
    if (!this.hasPlace(false)) this.#fullSince ??= nowMs
  }

  remove(entry: Entry): void {
    if (this.#entries.get(entry.messageId) !== entry) return
    this.#entries.delete(entry.messageId)
    if (entry.written === undefined) return
    this.#count(entry, -1)
    if (this.hasPlace(false)) this.#fullSince = undefined
  }

  takeAll(): Entry[] {
    const entries = [...this.#entries.values()]
    for (const entry of entries) this.remove(entry)
    return entries
  }

  #count(entry: Entry, sign: 1 | -1): void {
    this.#writtenCount += sign
    if (!entry.reserved) this.#ordinaryCount += sign
  }
}
