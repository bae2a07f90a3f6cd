/** What an edge says of itself with each renewal of its lease. */
export interface EdgeRecord {
  readonly edgeId: string
  readonly name: string
  /** Where routers reach it, host:port. */
  readonly address: string
  /** May be empty. */
  readonly zone: string
  readonly connectionCount: number
  readonly connectionLimit: number
  readonly draining: boolean
}

/** A lease as read back. */
export interface StoredLease {
  readonly edge: EdgeRecord
  /** How much longer the lease lasts by the store's clock, in milliseconds; may be short by up to a second. */
  readonly remainingMs: number
}

/**
 * Keeps one lease per edge. A lease that is not written again ends by itself. Failures are those of `SessionStore`.
 */
export interface EdgeStore {
  /** Takes or renews a lease for `ttlSeconds` (a whole number from 1) from now. */
  writeLease(edge: EdgeRecord, ttlSeconds: number): Promise<void>
  /** Reads every lease that has not ended, in any order. */
  readAll(): Promise<StoredLease[]>
  /** The store's wall clock in µs since 1970. */
  clockMicros(): Promise<number>
  /** Ends what is open. Calls that still run may fail. */
  close(): Promise<void>
}
