import { fullLevel, hasTokens, type TokenLevel, type TokenRate } from '../../service-kit/token-bucket.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { Backlog } from '../retry-after.ts'

/** What is known of one address. Times are ms on the monotonic clock. */
export interface AddressEntry {
  readonly key: string
  /** Let in and not yet gone. */
  connections: number
  /** Refused, and still here to be told why. */
  refused: number
  readonly connects: TokenLevel
  readonly failures: TokenLevel
  /** Refused connections that may still be heard. */
  readonly hearings: TokenLevel
  readonly backlog: Backlog
}

/** What the table is bounded by, and what tells an entry that is worth nothing. May change. */
export interface AddressTableLimits {
  /** Most addresses that are remembered without a connection. */
  readonly addressesMax: number
  readonly addressConnects: TokenRate
  readonly addressFailures: TokenRate
}

/** Most refused connections of one address that are heard at once, and a second: the others are cut, so that it cannot take the places of all. */
export const refusedPerAddressMax = 16
export const hearingsOfAddress: TokenRate = { ratePerSecond: refusedPerAddressMax, burst: refusedPerAddressMax }

/** Looked through at each arrival; more than one, so that a table full of old entries shrinks. */
const sweptAtOnce = 2

/**
 * Addresses with what they have used up. Those with connections are as many as connections may be; of the others the ones that were not
 * seen for longest go when there are too many, so that a flood from a million addresses finds the same room as one from ten.
 */
export class AddressTable {
  readonly #active = new Map<string, AddressEntry>()
  // In the order in which they were left.
  readonly #idle = new Map<string, AddressEntry>()
  readonly #limits: () => AddressTableLimits
  readonly #metrics: Pick<EdgeMetrics, 'addresses' | 'addressesForgotten'>

  constructor(limits: () => AddressTableLimits, metrics: Pick<EdgeMetrics, 'addresses' | 'addressesForgotten'>) {
    this.#limits = limits
    this.#metrics = metrics
  }

  get size(): number {
    return this.#active.size + this.#idle.size
  }

  /** The entry of an address; new ones have full buckets. To be given back by `release`. */
  take(key: string, nowMs: number): AddressEntry {
    const { addressConnects, addressFailures } = this.#limits()
    const entry = this.#active.get(key) ??
      this.#idle.get(key) ?? {
        key,
        connections: 0,
        refused: 0,
        connects: fullLevel(addressConnects, nowMs),
        failures: fullLevel(addressFailures, nowMs),
        hearings: fullLevel(hearingsOfAddress, nowMs),
        backlog: { count: 0, countedAt: nowMs },
      }
    this.#idle.delete(key)
    this.#active.set(key, entry)
    this.#sweep(nowMs)
    return entry
  }

  /** Forgets an address that has nothing here any more, unless there is something to hold against it. */
  release(entry: AddressEntry, nowMs: number): void {
    if (entry.connections > 0 || entry.refused > 0) return
    this.#active.delete(entry.key)
    if (!this.#isBlank(entry, nowMs)) this.#idle.set(entry.key, entry)
    this.#sweep(nowMs)
  }

  #sweep(nowMs: number): void {
    const { addressesMax } = this.#limits()
    let swept = 0
    for (const [key, entry] of this.#idle) {
      const tooMany = this.#idle.size > addressesMax
      if (!tooMany && swept++ >= sweptAtOnce) break
      const blank = this.#isBlank(entry, nowMs)
      if (!tooMany && !blank) break
      this.#idle.delete(key)
      if (!blank) this.#metrics.addressesForgotten.inc()
    }
    this.#metrics.addresses.set({ state: 'connected' }, this.#active.size)
    this.#metrics.addresses.set({ state: 'remembered' }, this.#idle.size)
  }

  /** Whether a new entry would say the same. */
  #isBlank({ connects, failures }: AddressEntry, nowMs: number): boolean {
    const { addressConnects, addressFailures } = this.#limits()
    const full = (level: TokenLevel, rate: TokenRate) => hasTokens(level, rate, nowMs, rate.burst)
    return full(connects, addressConnects) && full(failures, addressFailures)
  }
}
