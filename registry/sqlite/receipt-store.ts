import type { Clock } from '../../service-kit/clock.ts'
import type { ReceiptStore } from '../receipt-store.ts'
import type { SqliteDatabase } from './database.ts'
import { bytesOf, reading } from './inbox-store.ts'

/** Receipts in a SQLite file. The clock decides when rows end. */
export function createSqliteReceiptStore(database: SqliteDatabase, clock: Clock): ReceiptStore {
  const { connection } = database
  const insert = connection.prepare(
    `INSERT INTO receipts VALUES (?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET time = excluded.time, receipt = excluded.receipt, ends_at = excluded.ends_at
     WHERE ends_at <= ? OR excluded.time < time OR (excluded.time = time AND excluded.receipt > receipt)`,
  )
  const page = connection.prepare(
    `SELECT device_id, state, time, receipt FROM receipts
     WHERE message_id = ? AND (device_id, state) > (?, ?) AND ends_at > ? ORDER BY device_id, state LIMIT ?`,
  )

  return {
    insert({ messageId, deviceId, state, time, receipt }, ttlSeconds) {
      return database.write(() => {
        const now = clock.now()
        insert.run(messageId, deviceId, state, time, receipt, now + ttlSeconds * 1000, now)
      })
    },
    async read(messageId, after, limit) {
      const found = reading(() => page.all(messageId, after?.deviceId ?? '', after?.state ?? 0, clock.now(), limit))
      return found.map((columns) => ({
        messageId,
        deviceId: String(columns.device_id),
        state: Number(columns.state),
        time: Number(columns.time),
        receipt: bytesOf(columns.receipt),
      }))
    },
    close: () => database.close(),
  }
}
