import type { Entry } from './entry.ts'

/** What one outbox may hold. A quarter of both is kept for HIGH and RECOVERY. */
export interface OutboxLimits {
  readonly bytes: number
  readonly count: number
}

/** What all outboxes of this edge hold together. */
export interface OutboxBudget {
  usedBytes: number
  readonly limitBytes: number
}

/** What became of an offer. */
export type OfferResult =
  /** Kept; `replaced` was taken out for it, when there was an older version. */
  | { readonly kind: 'kept'; readonly replaced: Entry | undefined }
  /** Not kept: a newer version waits already. */
  | { readonly kind: 'older' }
  /** Not kept: it would pass a limit. */
  | { readonly kind: 'full' }

/** The part of the limits that other messages than HIGH and RECOVERY may use. */
const ordinaryShare = 0.75

/** Frames that wait for one device: by priority, and within one by arrival. A newer version takes the place of the older. */
export class Outbox {
  readonly #limits: OutboxLimits
  readonly #budget: OutboxBudget
  // A Map keeps the place of a key that is set again: that is what collapsing in place needs.
  readonly #lanes = [new Map<string, Entry>(), new Map<string, Entry>(), new Map<string, Entry>()] as const
  #bytes = 0
  #count = 0
  #reservedCount = 0

  constructor(limits: OutboxLimits, budget: OutboxBudget) {
    this.#limits = limits
    this.#budget = budget
  }

  get bytes(): number {
    return this.#bytes
  }

  get count(): number {
    return this.#count
  }

  /** At most half of what other messages than HIGH and RECOVERY may use is in use. */
  get low(): boolean {
    const share = ordinaryShare / 2
    return this.#bytes <= this.#limits.bytes * share && this.#count <= this.#limits.count * share
  }

  /** Keeps the entry, or nothing at all. */
  offer(entry: Entry): OfferResult {
    const older = entry.collapse === undefined ? undefined : this.#version(entry)
    if (older !== undefined && isNewer(older, entry)) return { kind: 'older' }
    if (!this.#fits(entry, older)) return { kind: 'full' }
    if (older !== undefined && older.lane !== entry.lane) this.remove(older)
    else if (older !== undefined) this.#account(older, -1)
    this.#lanes[entry.lane].set(keyOf(entry), entry)
    this.#account(entry, 1)
    return { kind: 'kept', replaced: older }
  }

  /**
   * The entry to write next; it stays until `remove`. With `reservedOnly` the first of HIGH or RECOVERY: it overtakes others of its
   * priority only because these have no place, and a hung handler must not block the command that heals it.
   */
  next(reservedOnly: boolean): Entry | undefined {
    if (this.#count === 0 || (reservedOnly && this.#reservedCount === 0)) return undefined
    for (const lane of this.#lanes) {
      for (const entry of lane.values()) {
        if (!reservedOnly || entry.reserved) return entry
      }
    }
    return undefined
  }

  remove(entry: Entry): void {
    const lane = this.#lanes[entry.lane]
    if (lane.get(keyOf(entry)) !== entry) return
    lane.delete(keyOf(entry))
    this.#account(entry, -1)
  }

  /** Takes out what has expired by then. */
  takeExpired(nowMs: number): Entry[] {
    return this.#take((entry) => entry.expiresAt <= nowMs)
  }

  /** Takes out what has waited since then or longer. */
  takeOlder(sinceMs: number): Entry[] {
    return this.#take((entry) => entry.waitsSince <= sinceMs)
  }

  takeAll(): Entry[] {
    return this.#take(() => true)
  }

  #take(wanted: (entry: Entry) => boolean): Entry[] {
    const taken = this.#lanes.flatMap((lane) => [...lane.values()].filter(wanted))
    for (const entry of taken) this.remove(entry)
    return taken
  }

  #version(entry: Entry): Entry | undefined {
    const key = keyOf(entry)
    for (const lane of this.#lanes) {
      const found = lane.get(key)
      if (found !== undefined) return found
    }
    return undefined
  }

  #fits(entry: Entry, older: Entry | undefined): boolean {
    const addedBytes = entry.frameBytes - (older?.frameBytes ?? 0)
    if (this.#budget.usedBytes + addedBytes > this.#budget.limitBytes) return false
    const share = entry.reserved ? 1 : ordinaryShare
    if (this.#bytes + addedBytes > this.#limits.bytes * share) return false
    return this.#count + (older === undefined ? 1 : 0) <= this.#limits.count * share
  }

  #account(entry: Entry, sign: 1 | -1): void {
    this.#bytes += sign * entry.frameBytes
    this.#budget.usedBytes += sign * entry.frameBytes
    this.#count += sign
    if (entry.reserved) this.#reservedCount += sign
  }
}

function keyOf(entry: Entry): string {
  // The first letter keeps a message id from passing for a collapse key.
  return entry.collapse === undefined ? `m${entry.messageId}` : `c${entry.collapse}`
}

/** Versions are ordered by when a router took them, equal ones by id. */
function isNewer(a: Entry, b: Entry): boolean {
  return a.acceptTime === b.acceptTime ? a.messageId > b.messageId : a.acceptTime > b.acceptTime
}
