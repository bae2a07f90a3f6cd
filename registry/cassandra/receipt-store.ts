import type { ReceiptStore } from '../receipt-store.ts'
import type { RunStatement, Statement } from './statements.ts'

/**
 * Receipts in Cassandra: one partition a message. The timestamp of a row is its time with a minus before it, so that of two
 * rows with one key the earlier wins: a repeat, which is later, changes nothing.
 */
export function createCassandraReceiptStore(run: RunStatement, keyspace: string): Omit<ReceiptStore, 'close'> {
  const insert: Statement = {
    query: `INSERT INTO ${keyspace}.receipts (message_id, device_id, state, receipt) VALUES (?, ?, ?, ?)
            USING TIMESTAMP ? AND TTL ?`,
    repeatable: true,
  }
  const read: Statement = {
    query: `SELECT device_id, state, receipt, WRITETIME(receipt) AS stamp FROM ${keyspace}.receipts
            WHERE message_id = ? AND (device_id, state) > (?, ?) LIMIT ?`,
    repeatable: true,
  }

  return {
    async insert({ messageId, deviceId, state, time, receipt }, ttlSeconds) {
      const bytes = Buffer.from(receipt.buffer, receipt.byteOffset, receipt.byteLength)
      await run(insert, [messageId, deviceId, state, bytes, -BigInt(time), ttlSeconds])
    },
    async read(messageId, after, limit) {
      const rows = await run(read, [messageId, after?.deviceId ?? '', after?.state ?? 0, limit])
      return rows.map((row) => ({
        messageId,
        deviceId: String(row.get('device_id')),
        state: Number(row.get('state')),
        time: -Number(row.get('stamp')),
        receipt: row.get('receipt'),
      }))
    },
  }
}
