import type { Clock } from '../../service-kit/clock.ts'
import { type InboxPage, type InboxStore, type InboxSummary, inboxReadLimitMax } from '../inbox-store.ts'
import { storeUnavailable } from '../stores.ts'
import type { SqliteDatabase } from './database.ts'
import { tombstoneKeptMs } from './session-store.ts'

/** Inboxes in a SQLite file. The clock decides when rows end. */
export function createSqliteInboxStore(database: SqliteDatabase, clock: Clock): InboxStore {
  const { connection } = database
  const columns = 'message_id, priority, recovery, accept_time, expire_time, collapse_key, size'
  const one = connection.prepare('SELECT message FROM inbox WHERE device_id = ? AND message_id = ? AND ends_at > ?')
  const summaries = connection.prepare(`SELECT ${columns} FROM inbox WHERE device_id = ? AND ends_at > ? LIMIT ?`)
  const whole = connection.prepare(`SELECT ${columns}, message FROM inbox WHERE device_id = ? AND ends_at > ? LIMIT ?`)
  const tombstone = connection.prepare(
    `SELECT 1 AS dead FROM inbox_tombstones WHERE device_id = ? AND message_id = ? AND accept_time >= ? AND ends_at > ?`,
  )
  // Of two acceptances of one message the later one's row stays, as that of two timestamps would.
  const insert = connection.prepare(
    `INSERT INTO inbox (device_id, ${columns}, message, ends_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET priority = excluded.priority, recovery = excluded.recovery, accept_time = excluded.accept_time,
       expire_time = excluded.expire_time, collapse_key = excluded.collapse_key, size = excluded.size, message = excluded.message,
       ends_at = CASE WHEN excluded.accept_time = accept_time THEN max(ends_at, excluded.ends_at) ELSE excluded.ends_at END
     WHERE excluded.accept_time >= accept_time`,
  )
  const remove = connection.prepare('DELETE FROM inbox WHERE device_id = ? AND message_id = ? AND accept_time <= ?')
  const bury = connection.prepare(
    `INSERT INTO inbox_tombstones VALUES (?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET accept_time = max(accept_time, excluded.accept_time), ends_at = max(ends_at, excluded.ends_at)`,
  )
  const hint = connection.prepare(
    `INSERT INTO device_hints VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET inbox_until = excluded.inbox_until,
       ends_at = CASE WHEN excluded.inbox_until = inbox_until THEN max(ends_at, excluded.ends_at) ELSE excluded.ends_at END
     WHERE excluded.inbox_until >= inbox_until`,
  )

  const page = <T extends InboxSummary>(
    statement: typeof whole,
    deviceId: string,
    toRow: (columns: Record<string, unknown>) => T,
  ): InboxPage<T> => {
    const found = reading(() => statement.all(deviceId, clock.now(), inboxReadLimitMax + 1))
    return { rows: found.slice(0, inboxReadLimitMax).map(toRow), more: found.length > inboxReadLimitMax }
  }

  return {
    insert(deviceId, row, ttlSeconds) {
      return database.write(() => {
        const { messageId, priority, recovery, acceptTime, expireTime, collapseKey, size, message } = row
        const now = clock.now()
        if (tombstone.get(deviceId, messageId, acceptTime, now) !== undefined) return
        const values = [messageId, priority, recovery ? 1 : 0, acceptTime, expireTime, collapseKey, size, message]
        insert.run(deviceId, ...values, now + ttlSeconds * 1000)
      })
    },
    writeHint(deviceId, inboxUntil, ttlSeconds) {
      return database.write(() => {
        hint.run(deviceId, inboxUntil, clock.now() + ttlSeconds * 1000)
      })
    },
    list: async (deviceId) => page(summaries, deviceId, toSummary),
    read: async (deviceId) => page(whole, deviceId, (columns) => ({ ...toSummary(columns), message: bytesOf(columns.message) })),
    async readMessage(deviceId, messageId) {
      const found = reading(() => one.get(deviceId, messageId, clock.now()))
      return found === undefined ? undefined : bytesOf(found.message)
    },
    delete({ deviceId, messageId, acceptTime }) {
      return database.write(() => {
        remove.run(deviceId, messageId, acceptTime)
        bury.run(deviceId, messageId, acceptTime, clock.now() + tombstoneKeptMs)
      })
    },
    close: () => database.close(),
  }
}

function toSummary(columns: Record<string, unknown>): InboxSummary {
  return {
    messageId: String(columns.message_id),
    acceptTime: Number(columns.accept_time),
    expireTime: Number(columns.expire_time),
    priority: Number(columns.priority),
    recovery: columns.recovery === 1,
    collapseKey: String(columns.collapse_key),
    size: Number(columns.size),
  }
}

/** The bytes of a blob column. */
export function bytesOf(column: unknown): Uint8Array {
  if (!(column instanceof Uint8Array)) throw new Error('a column that holds bytes holds something else')
  return column
}

/** Runs a read; whatever the file says is the store's trouble. */
export function reading<T>(run: () => T): T {
  try {
    return run()
  } catch (cause) {
    throw storeUnavailable(cause)
  }
}
