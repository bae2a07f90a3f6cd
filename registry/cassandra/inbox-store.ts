import type { types } from 'cassandra-driver'
import { type InboxPage, type InboxRow, type InboxStore, type InboxSummary, inboxReadLimitMax } from '../inbox-store.ts'
import type { RunStatement, Statement } from './statements.ts'

const summaryColumns = 'message_id, priority, recovery, accept_time, expire_time, collapse_key, size'

/** Inboxes in Cassandra: one partition a device, one row a message, written and deleted at the message's accept time. */
export function createCassandraInboxStore(run: RunStatement, keyspace: string): Omit<InboxStore, 'close'> {
  const repeatable = true
  const insert: Statement = {
    query: `INSERT INTO ${keyspace}.inbox (device_id, ${summaryColumns}, message)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?`,
    repeatable,
  }
  const hint: Statement = {
    query: `UPDATE ${keyspace}.device_sessions USING TIMESTAMP ? AND TTL ? SET inbox_until = ? WHERE device_id = ?`,
    repeatable,
  }
  const list: Statement = { query: `SELECT ${summaryColumns} FROM ${keyspace}.inbox WHERE device_id = ? LIMIT ?`, repeatable }
  const read: Statement = {
    query: `SELECT ${summaryColumns}, message FROM ${keyspace}.inbox WHERE device_id = ? LIMIT ?`,
    repeatable,
  }
  const readOne: Statement = {
    query: `SELECT message FROM ${keyspace}.inbox WHERE device_id = ? AND message_id = ?`,
    repeatable,
  }
  const remove: Statement = {
    query: `DELETE FROM ${keyspace}.inbox USING TIMESTAMP ? WHERE device_id = ? AND message_id = ?`,
    repeatable,
  }

  return {
    async insert(deviceId, row, ttlSeconds) {
      const { messageId, priority, recovery, collapseKey, size } = row
      const acceptTime = BigInt(row.acceptTime)
      const summary = [messageId, priority, recovery, acceptTime, BigInt(row.expireTime), collapseKey, size]
      await run(insert, [deviceId, ...summary, bufferOf(row.message), acceptTime, ttlSeconds])
    },
    async writeHint(deviceId, inboxUntil, ttlSeconds) {
      const until = BigInt(inboxUntil)
      await run(hint, [until, ttlSeconds, until, deviceId])
    },
    async list(deviceId) {
      return toPage(await run(list, [deviceId, inboxReadLimitMax + 1]), toSummary)
    },
    async read(deviceId) {
      const toRow = (row: types.Row): InboxRow => ({ ...toSummary(row), message: row.get('message') })
      return toPage(await run(read, [deviceId, inboxReadLimitMax + 1]), toRow)
    },
    async readMessage(deviceId, messageId) {
      const [row] = await run(readOne, [deviceId, messageId])
      return row?.get('message') ?? undefined
    },
    async delete({ deviceId, messageId, acceptTime }) {
      await run(remove, [BigInt(acceptTime), deviceId, messageId])
    },
  }
}

function toPage<T extends InboxSummary>(found: readonly types.Row[], toRow: (row: types.Row) => T): InboxPage<T> {
  return { rows: found.slice(0, inboxReadLimitMax).map(toRow), more: found.length > inboxReadLimitMax }
}

function toSummary(row: types.Row): InboxSummary {
  return {
    messageId: String(row.get('message_id')),
    acceptTime: Number(row.get('accept_time')),
    expireTime: Number(row.get('expire_time')),
    priority: Number(row.get('priority')),
    recovery: row.get('recovery') === true,
    collapseKey: String(row.get('collapse_key')),
    size: Number(row.get('size')),
  }
}

/** The driver takes Buffers only. */
function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
