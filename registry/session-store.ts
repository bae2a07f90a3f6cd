import type { SessionRow } from '../gen/push/internal/v1/registry.ts'

export type { SessionRow }

/** Most rows that one read of a device may ask for. */
export const sessionReadLimitMax = 1000
const dayMicros = 86_400_000_000

/** The day of a moment in µs since 1970, in days since then. */
export const dayOf = (micros: number): number => Math.floor(micros / dayMicros)

/** Names one row. The epoch is also the timestamp that the row is written and deleted with. */
export interface SessionRowKey {
  readonly deviceId: string
  /** µs since 1970; a whole number from 1. */
  readonly epoch: number
  readonly sessionId: string
}

/** What is stored of one device. */
export interface DevicePartition {
  /** Newest first: by epoch, then by the session id's bytes. */
  readonly rows: SessionRow[]
  /** There are older rows than these. */
  readonly more: boolean
  /** Messages may wait in the inbox up to this moment, in µs since 1970; 0 when the hint is not set. */
  readonly inboxUntil: number
}

/**
 * Keeps one row per session. Shaped by what Cassandra can keep, and by no more:
 *
 * - a row is written and deleted at its epoch: an insert that arrives after the delete of its key stays dead (for three
 *   hours), a delete touches no other row, a repeat changes nothing;
 * - a row ends by itself after its time to live; the same key written again after that is alive again;
 * - there is no compare-and-set: two writers never see each other but by reading.
 *
 * Any failure is a `PushError` with REGISTRY_UNAVAILABLE, and then says nothing of whether the step happened.
 */
export interface SessionStore {
  /** Reads the newest rows of a device, at most `limit` (1 to `sessionReadLimitMax`), and its inbox hint. */
  read(deviceId: string, limit: number): Promise<DevicePartition>
  /** Writes a row that lives for `ttlSeconds` (a whole number from 1). Of two lifetimes of one row the longer wins. */
  insert(row: SessionRow, ttlSeconds: number): Promise<void>
  /** Deletes the row with this key. A key that is not there is deleted all the same, so that a late insert stays dead. */
  delete(key: SessionRowKey): Promise<void>
  /** Notes that a device has logged in to an account at that moment, in µs since 1970. Of two notes the later counts. Kept for 90 days. */
  writeAccountDevice(accountId: string, deviceId: string, noted: number): Promise<void>
  /** When a device was last noted for an account, in µs since 1970, to the ms; undefined when it is not. */
  readAccountDevice(accountId: string, deviceId: string): Promise<number | undefined>
  /** Forgets that a device was noted for an account at that moment or before. A later note stays, also one that is written afterwards. */
  deleteAccountDevice(accountId: string, deviceId: string, noted: number): Promise<void>
  /** Reads the ids of devices noted for an account, in order, from after this one on ('' for the first), at most `limit`. */
  readAccountDevices(accountId: string, after: string, limit: number): Promise<string[]>
  /** Notes that a session has taken the place of another. Kept for `ttlSeconds`; a repeat is the same note. */
  writeTakeover(deviceId: string, sessionId: string, ttlSeconds: number): Promise<void>
  /** Counts the notes of a device that are still kept, up to `limit`. */
  countTakeovers(deviceId: string, limit: number): Promise<number>
  /** The store's wall clock in µs since 1970. */
  clockMicros(): Promise<number>
  /** Ends what is open. Calls that still run may fail. */
  close(): Promise<void>
}

/**
 * Which of two rows is the newer: negative when `a` is older than `b`. The whole pair counts, as two registries may mint
 * one epoch for two sessions. Ids are ASCII, so that JavaScript's order of strings is the stores' order of bytes.
 */
export function compareRows(a: Pick<SessionRow, 'epoch' | 'sessionId'>, b: Pick<SessionRow, 'epoch' | 'sessionId'>): number {
  if (a.epoch !== b.epoch) return a.epoch - b.epoch
  return a.sessionId < b.sessionId ? -1 : a.sessionId > b.sessionId ? 1 : 0
}
