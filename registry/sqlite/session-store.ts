import type { Clock } from '../../service-kit/clock.ts'
import { dayOf, type SessionRow, type SessionStore } from '../session-store.ts'
import { storeUnavailable } from '../stores.ts'
import type { SqliteDatabase } from './database.ts'

/** How long a late insert of a deleted row stays dead: no longer than Cassandra keeps its tombstones. */
export const tombstoneKeptMs = 3 * 3_600_000
const accountDeviceKeptMs = 90 * 86_400_000

/** A note's end tells when it was written: there is no column for it. */
const noteEndsAt = (noted: number): number => Math.floor(noted / 1000) + accountDeviceKeptMs

/** Sessions in a SQLite file. The clock decides when rows end. */
export function createSqliteSessionStore(database: SqliteDatabase, clock: Clock): SessionStore {
  const { connection } = database
  const newest = connection.prepare(
    `SELECT device_id AS deviceId, epoch, session_id AS sessionId, edge_id AS edgeId, edge_address AS edgeAddress,
            account_id AS accountId, protocol, connected_time AS connectedTime
     FROM device_sessions WHERE device_id = ? AND ends_at > ? ORDER BY epoch DESC, session_id DESC LIMIT ?`,
  )
  const hint = connection.prepare('SELECT inbox_until FROM device_hints WHERE device_id = ? AND ends_at > ?')
  const tombstone = connection.prepare(
    'SELECT 1 AS dead FROM session_tombstones WHERE device_id = ? AND epoch = ? AND session_id = ? AND ends_at > ?',
  )
  const insert = connection.prepare(
    `INSERT INTO device_sessions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET ends_at = max(ends_at, excluded.ends_at)`,
  )
  const remove = connection.prepare('DELETE FROM device_sessions WHERE device_id = ? AND epoch = ? AND session_id = ?')
  const bury = connection.prepare(
    'INSERT INTO session_tombstones VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET ends_at = max(ends_at, excluded.ends_at)',
  )
  const noteAccount = connection.prepare(
    `INSERT INTO account_devices VALUES (?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET last_seen_day = max(last_seen_day, excluded.last_seen_day), ends_at = max(ends_at, excluded.ends_at)`,
  )
  const noteOfAccount = connection.prepare(
    'SELECT ends_at AS endsAt FROM account_devices WHERE account_id = ? AND device_id = ? AND ends_at > ?',
  )
  const forgetAccount = connection.prepare('DELETE FROM account_devices WHERE account_id = ? AND device_id = ? AND ends_at <= ?')
  const noteTakeover = connection.prepare(
    'INSERT INTO session_takeovers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ends_at = max(ends_at, excluded.ends_at)',
  )
  const takeovers = connection.prepare(
    'SELECT count(*) AS count FROM (SELECT 1 FROM session_takeovers WHERE device_id = ? AND ends_at > ? LIMIT ?)',
  )
  const accountDevices = connection.prepare(
    'SELECT device_id FROM account_devices WHERE account_id = ? AND device_id > ? AND ends_at > ? ORDER BY device_id LIMIT ?',
  )

  return {
    async read(deviceId, limit) {
      try {
        const now = clock.now()
        const found = newest.all(deviceId, now, limit + 1).map(toRow)
        const until = hint.get(deviceId, now)?.inbox_until
        return { rows: found.slice(0, limit), more: found.length > limit, inboxUntil: typeof until === 'number' ? until : 0 }
      } catch (cause) {
        throw storeUnavailable(cause)
      }
    },
    insert(row, ttlSeconds) {
      return database.write(() => {
        const { deviceId, epoch, sessionId, edgeId, edgeAddress, accountId, protocol, connectedTime } = row
        const now = clock.now()
        if (tombstone.get(deviceId, epoch, sessionId, now) !== undefined) return
        insert.run(deviceId, epoch, sessionId, edgeId, edgeAddress, accountId, protocol, connectedTime, now + ttlSeconds * 1000)
      })
    },
    delete({ deviceId, epoch, sessionId }) {
      return database.write(() => {
        remove.run(deviceId, epoch, sessionId)
        bury.run(deviceId, epoch, sessionId, clock.now() + tombstoneKeptMs)
      })
    },
    writeAccountDevice(accountId, deviceId, noted) {
      return database.write(() => {
        noteAccount.run(accountId, deviceId, dayOf(noted), noteEndsAt(noted))
      })
    },
    async readAccountDevice(accountId, deviceId) {
      try {
        const endsAt = noteOfAccount.get(accountId, deviceId, clock.now())?.endsAt
        return typeof endsAt === 'number' ? (endsAt - accountDeviceKeptMs) * 1000 : undefined
      } catch (cause) {
        throw storeUnavailable(cause)
      }
    },
    deleteAccountDevice(accountId, deviceId, noted) {
      return database.write(() => {
        forgetAccount.run(accountId, deviceId, noteEndsAt(noted))
      })
    },
    async readAccountDevices(accountId, after, limit) {
      try {
        return accountDevices.all(accountId, after, clock.now(), limit).map((columns) => String(columns.device_id))
      } catch (cause) {
        throw storeUnavailable(cause)
      }
    },
    writeTakeover(deviceId, sessionId, ttlSeconds) {
      return database.write(() => {
        noteTakeover.run(deviceId, sessionId, clock.now() + ttlSeconds * 1000)
      })
    },
    async countTakeovers(deviceId, limit) {
      try {
        return Number(takeovers.get(deviceId, clock.now(), limit)?.count ?? 0)
      } catch (cause) {
        throw storeUnavailable(cause)
      }
    },
    async clockMicros() {
      return clock.nowMicros()
    },
    close: () => database.close(),
  }
}

function toRow(columns: Record<string, unknown>): SessionRow {
  const { deviceId, epoch, sessionId, edgeId, edgeAddress, accountId, protocol, connectedTime } = columns
  return {
    deviceId: String(deviceId),
    epoch: Number(epoch),
    sessionId: String(sessionId),
    edgeId: String(edgeId),
    edgeAddress: String(edgeAddress),
    accountId: String(accountId),
    protocol: String(protocol),
    connectedTime: Number(connectedTime),
  }
}
