/** Most rows that one read of an inbox returns. An inbox that is kept to its bounds is far below it. */
export const inboxReadLimitMax = 1000

/** Names one row. The accept time is also the timestamp that the row is written and deleted with. */
export interface InboxRowKey {
  readonly deviceId: string
  readonly messageId: string
  /** µs since 1970; a whole number from 1. */
  readonly acceptTime: number
}

/** What is known of a waiting message without reading it. */
export interface InboxSummary {
  readonly messageId: string
  /** µs since 1970. With the message id it orders the versions of a collapse key. */
  readonly acceptTime: number
  /** µs since 1970: when the message ends. Its row may outlive it by some seconds. */
  readonly expireTime: number
  /** A `push.v1.Priority`, never unspecified: the lower number goes first. */
  readonly priority: number
  /** The message is of class RECOVERY. */
  readonly recovery: boolean
  /** The same text for all versions of one collapse key; empty for a message without one. */
  readonly collapseKey: string
  /** The length of the encoded message. */
  readonly size: number
}

/** A waiting message. */
export interface InboxRow extends InboxSummary {
  /** A `push.internal.v1.QueuedMessage`, encoded. */
  readonly message: Uint8Array
}

/** What was read of an inbox. */
export interface InboxPage<T extends InboxSummary> {
  /** In no order. */
  readonly rows: T[]
  /** There are more than `inboxReadLimitMax`. */
  readonly more: boolean
}

/**
 * Keeps messages for devices that are away, one row a message. Shaped by what Cassandra can keep, and by no more:
 *
 * - a row is written and deleted at its message's accept time: an insert that arrives after the delete of its key stays dead
 *   (for three hours), a delete touches no other message and no later acceptance of the same one, a repeat changes nothing;
 * - a row ends by itself after its time to live, which is in whole seconds and may be short by almost one;
 * - there is no delete of more than one row: it would swallow what was accepted before it and stored after it;
 * - a device's hint is one value, written at the moment that it names: the latest moment wins, whatever the order of the
 *   writes. It ends by its own time to live and is never cleared.
 *
 * Any failure is a `PushError` with REGISTRY_UNAVAILABLE, and then says nothing of whether the step happened.
 */
export interface InboxStore {
  /** Writes a row that lives for `ttlSeconds` (a whole number from 1). Of two lifetimes of one row the longer wins. */
  insert(deviceId: string, row: InboxRow, ttlSeconds: number): Promise<void>
  /** Notes that messages may wait up to `inboxUntil` (µs since 1970). Read with the device's sessions. */
  writeHint(deviceId: string, inboxUntil: number, ttlSeconds: number): Promise<void>
  /** Reads a device's inbox without the messages. */
  list(deviceId: string): Promise<InboxPage<InboxSummary>>
  /** Reads a device's inbox with the messages. */
  read(deviceId: string): Promise<InboxPage<InboxRow>>
  /** Reads one message; undefined when it does not wait. */
  readMessage(deviceId: string, messageId: string): Promise<Uint8Array | undefined>
  /** Deletes the row with this key. A key that is not there is deleted all the same, so that a late insert stays dead. */
  delete(key: InboxRowKey): Promise<void>
  /** Ends what is open. Calls that still run may fail. */
  close(): Promise<void>
}
