import type { EdgeRecord, StoredLease } from './edge-store.ts'

/** What this registry believes of an edge. */
export type EdgeState = 'live' | 'suspect' | 'lapsed'

/** An edge in the picture. */
export interface KnownEdge {
  readonly edge: EdgeRecord
  readonly state: EdgeState
  /** When the lease ends unless renewed; on the same clock as the events' `at`. */
  readonly leaseEndsAt: number
}

/** The bounds of the machine, all in milliseconds on one monotonic clock. */
export interface EdgeLivenessBounds {
  /** The lease that the rules speak of. */
  readonly leasePeriodMs: number
  /** Two successful reads further apart than this count as a failure between them: a hung read is no sign of health. */
  readonly readGapMaxMs: number
}

/** From this many edges on, losing many at once is taken for trouble of the store rather than of the edges. */
const massLapseEdgesMin = 5
/** More than this share of all edges within one lease period are many. */
const massLapseShare = 0.2
/** An edge that lapsed stays in the picture for so many lease periods. */
const lapsedShownPeriods = 10
/** An edge that lapsed is remembered for so many lease periods, to be told when it comes back. */
const lapsedKeptPeriods = 120
/** An edge that was told that it lapsed is told again by a renewal within this share of a lease period. */
const toldAgainShare = 0.25
/** Edges asked for that are not known. Beyond it the one asked for first is forgotten, and is suspect when asked again. */
export const unknownEdgesMax = 10_000

interface Entry {
  edge: EdgeRecord
  state: EdgeState
  leaseEndsAt: number
  /** The last read did not show it, and by what is known here its lease has ended too. */
  missing: boolean
  /** When it would have lapsed by its lease alone; undefined while it is live. */
  dueAt: number | undefined
  suspectAt: number
  lapsedAt: number
  /** It lapsed so long ago that the picture no longer has it. */
  hidden: boolean
  /** It lapsed, and no renewal through this registry has told it so. */
  lapseUntold: boolean
  lapseToldAt: number
}

/**
 * Decides which edges are live, suspect or lapsed, from what the reads of the leases show. It does nothing else: no
 * store, no timer, so that every rule can be tested by itself. `at` is monotonic, in milliseconds, and never goes back.
 *
 * - While reads fail, and for one lease period after they work again, nothing lapses: after a stall of the store every
 *   lease reads as run out at once.
 * - When more than a fifth of five or more edges run out within one lease period, they are suspect, until renewed or
 *   until reads have succeeded for two lease periods.
 * - An edge that is not known is suspect until reads have succeeded for one lease period.
 */
export class EdgeLiveness {
  readonly #bounds: EdgeLivenessBounds
  readonly #edges = new Map<string, Entry>()
  readonly #unknownAskedAt = new Map<string, number>()
  #streakStartedAt: number | undefined
  #lastReadAt = 0
  #lastReadStartedAt = 0
  #version = 0

  constructor(bounds: EdgeLivenessBounds) {
    this.#bounds = bounds
  }

  /** A read of all leases has succeeded. `startedAt` is when it was sent. */
  readSucceeded(at: number, startedAt: number, leases: readonly StoredLease[]): void {
    const working = this.#streakStartedAt !== undefined && at - this.#lastReadAt <= this.#bounds.readGapMaxMs
    if (!working) this.#streakStartedAt = at
    this.#lastReadAt = at
    this.#lastReadStartedAt = startedAt
    const present = new Set<string>()
    for (const { edge, remainingMs } of leases) {
      present.add(edge.edgeId)
      this.#hold(edge, at + remainingMs)
    }
    for (const [edgeId, entry] of this.#edges) entry.missing = !present.has(edgeId) && at >= entry.leaseEndsAt
    this.#judge(at)
  }

  /** A read of all leases has failed: what it would have shown is not known, and the picture stays as it is. */
  readFailed(): void {
    this.#streakStartedAt = undefined
  }

  /**
   * The store has taken this edge's renewal. Says whether the edge had lapsed before. The renewal that follows at once is
   * told the same, as the answer to the first may have been lost. Not to be called when the store failed: an edge that
   * is not told that it lapsed would never check its sessions.
   */
  renewed(at: number, edge: EdgeRecord, ttlMs: number): { lapsed: boolean } {
    const entry = this.#hold(edge, at + ttlMs)
    entry.leaseEndsAt = at + ttlMs
    if (entry.lapseUntold) {
      entry.lapseUntold = false
      entry.lapseToldAt = at
    }
    return { lapsed: at - entry.lapseToldAt < this.#bounds.leasePeriodMs * toldAgainShare }
  }

  /** What is believed of an edge. Asking for one that is not known is remembered: the next read may show it. */
  stateOf(edgeId: string, at: number): EdgeState {
    const entry = this.#edges.get(edgeId)
    if (entry !== undefined) return entry.state
    let askedAt = this.#unknownAskedAt.get(edgeId)
    if (askedAt === undefined) {
      askedAt = at
      if (this.#unknownAskedAt.size >= unknownEdgesMax) {
        for (const oldest of this.#unknownAskedAt.keys()) {
          this.#unknownAskedAt.delete(oldest)
          break
        }
      }
      this.#unknownAskedAt.set(edgeId, at)
    }
    // It may have taken its lease a moment ago on another registry: only a read that began later can tell.
    const readSinceAsked = this.#lastReadStartedAt > askedAt
    return readSinceAsked && this.#readsWorkedFor(at) >= this.#bounds.leasePeriodMs ? 'lapsed' : 'suspect'
  }

  /** Grows whenever the picture changes in more than its counts of connections and the ends of its leases. */
  get version(): number {
    return this.#version
  }

  /** Every edge that holds a lease, or held one not long ago, by id. */
  picture(): KnownEdge[] {
    return [...this.#edges.values()]
      .filter(({ hidden }) => !hidden)
      .map(({ edge, state, leaseEndsAt }) => ({ edge, state, leaseEndsAt }))
      .sort((a, b) => (a.edge.edgeId < b.edge.edgeId ? -1 : 1))
  }

  /** How many edges are in a state. */
  count(state: EdgeState): number {
    let count = 0
    for (const entry of this.#edges.values()) if (entry.state === state) count += 1
    return count
  }

  #readsWorkedFor(at: number): number {
    if (this.#streakStartedAt === undefined || at - this.#lastReadAt > this.#bounds.readGapMaxMs) return -1
    return at - this.#streakStartedAt
  }

  #hold(edge: EdgeRecord, leaseEndsAt: number): Entry {
    this.#unknownAskedAt.delete(edge.edgeId)
    let entry = this.#edges.get(edge.edgeId)
    if (entry === undefined) {
      entry = {
        edge,
        state: 'live',
        leaseEndsAt,
        missing: false,
        dueAt: undefined,
        suspectAt: 0,
        lapsedAt: 0,
        hidden: false,
        lapseUntold: false,
        lapseToldAt: Number.NEGATIVE_INFINITY,
      }
      this.#edges.set(edge.edgeId, entry)
      this.#version += 1
      return entry
    }
    if (entry.state !== 'live' || !looksTheSame(entry.edge, edge)) this.#version += 1
    entry.edge = edge
    // What the store says is short by up to a second; a renewal that went through here is exact.
    entry.leaseEndsAt = Math.max(entry.leaseEndsAt, leaseEndsAt)
    entry.state = 'live'
    entry.missing = false
    entry.hidden = false
    entry.dueAt = undefined
    return entry
  }

  #judge(at: number): void {
    const { leasePeriodMs } = this.#bounds
    for (const [edgeId, entry] of this.#edges) {
      if (entry.state !== 'lapsed') continue
      const lapsedForMs = at - entry.lapsedAt
      if (lapsedForMs > lapsedKeptPeriods * leasePeriodMs) this.#edges.delete(edgeId)
      else if (!entry.hidden && lapsedForMs > lapsedShownPeriods * leasePeriodMs) {
        entry.hidden = true
        this.#version += 1
      }
    }
    const worked = this.#readsWorkedFor(at)
    if (worked < leasePeriodMs) return

    const fresh: Entry[] = []
    let whole = 0
    for (const entry of this.#edges.values()) {
      if (entry.missing && entry.state === 'live') entry.dueAt = at
      // What lapsed a moment ago belongs to the wave that it was the first of.
      const isFresh = entry.dueAt !== undefined && at - entry.dueAt <= leasePeriodMs
      if (isFresh) fresh.push(entry)
      if (isFresh || entry.state !== 'lapsed') whole += 1
    }
    const many = whole >= massLapseEdgesMin && fresh.length > whole * massLapseShare
    for (const entry of fresh) {
      if (many && entry.state !== 'suspect') this.#suspect(entry, at)
      else if (!many && entry.state === 'live') this.#lapse(entry, at)
    }
    for (const entry of this.#edges.values()) {
      const suspectFor = Math.min(worked, at - entry.suspectAt)
      if (entry.state === 'suspect' && suspectFor >= 2 * leasePeriodMs) this.#lapse(entry, at)
    }
  }

  #suspect(entry: Entry, at: number): void {
    entry.state = 'suspect'
    this.#version += 1
    entry.suspectAt = at
  }

  #lapse(entry: Entry, at: number): void {
    entry.state = 'lapsed'
    this.#version += 1
    entry.lapsedAt = at
    entry.lapseUntold = true
  }
}

function looksTheSame(a: EdgeRecord, b: EdgeRecord): boolean {
  return (
    a.address === b.address &&
    a.name === b.name &&
    a.zone === b.zone &&
    a.connectionLimit === b.connectionLimit &&
    a.draining === b.draining
  )
}
