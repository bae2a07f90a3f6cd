/** Names one row. */
export interface ReceiptRowKey {
  readonly messageId: string
  readonly deviceId: string
  /** A `push.v1.MessageState`. */
  readonly state: number
}

/** One state that one message has reached at one device. */
export interface ReceiptRow extends ReceiptRowKey {
  /** When it was reached, in µs since 1970; a whole number from 1. */
  readonly time: number
  /** A `push.internal.v1.Receipt`, encoded. */
  readonly receipt: Uint8Array
}

/**
 * Keeps one row for each message, device and state. Shaped by what Cassandra can keep, and by no more:
 *
 * - a row is only ever added: of two with one key the earlier `time` stays, so that a repeat with a later time changes nothing;
 *   of two with one time the greater bytes stay, whole;
 * - a row ends by itself after its time to live; none is deleted.
 *
 * Failures are those of `InboxStore`.
 */
export interface ReceiptStore {
  /** Writes a row that lives for `ttlSeconds` (a whole number from 1). */
  insert(row: ReceiptRow, ttlSeconds: number): Promise<void>
  /** Reads rows of a message by device and state, at most `limit`; `after` is the last one of the page before. */
  read(messageId: string, after: ReceiptRowKey | undefined, limit: number): Promise<ReceiptRow[]>
  /** Ends what is open. Calls that still run may fail. */
  close(): Promise<void>
}
