import type { types } from 'cassandra-driver'
import { type DevicePartition, dayOf, type SessionRow, type SessionStore } from '../session-store.ts'
import type { RunStatement, Statement } from './statements.ts'
import { readClockMicros } from './store-clock.ts'

const accountDeviceTtlSeconds = 90 * 86_400

/** Sessions in Cassandra: one partition a device, one row a session, written and deleted at the session's epoch. */
export function createCassandraSessionStore(run: RunStatement, keyspace: string): Omit<SessionStore, 'close'> {
  const read: Statement = {
    query: `SELECT epoch, session_id, edge_id, edge_address, account_id, protocol, connected_time, inbox_until
            FROM ${keyspace}.device_sessions WHERE device_id = ? LIMIT ?`,
    repeatable: true,
  }
  const insert: Statement = {
    query: `INSERT INTO ${keyspace}.device_sessions
              (device_id, epoch, session_id, edge_id, edge_address, account_id, protocol, connected_time)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?`,
    repeatable: true,
  }
  const remove: Statement = {
    query: `DELETE FROM ${keyspace}.device_sessions USING TIMESTAMP ? WHERE device_id = ? AND epoch = ? AND session_id = ?`,
    repeatable: true,
  }
  const noteAccount: Statement = {
    query: `INSERT INTO ${keyspace}.account_devices (account_id, device_id, last_seen_day) VALUES (?, ?, ?)
            USING TIMESTAMP ? AND TTL ${accountDeviceTtlSeconds}`,
    repeatable: true,
  }
  const noteOfAccount: Statement = {
    query: `SELECT WRITETIME(last_seen_day) AS noted FROM ${keyspace}.account_devices WHERE account_id = ? AND device_id = ?`,
    repeatable: true,
  }
  const forgetAccount: Statement = {
    query: `DELETE FROM ${keyspace}.account_devices USING TIMESTAMP ? WHERE account_id = ? AND device_id = ?`,
    repeatable: true,
  }
  const accountDevices: Statement = {
    query: `SELECT device_id FROM ${keyspace}.account_devices WHERE account_id = ? AND device_id > ? LIMIT ?`,
    repeatable: true,
  }

  const noteTakeover: Statement = {
    query: `INSERT INTO ${keyspace}.session_takeovers (device_id, session_id, noted) VALUES (?, ?, true) USING TTL ?`,
    repeatable: true,
  }
  const takeovers: Statement = {
    query: `SELECT session_id FROM ${keyspace}.session_takeovers WHERE device_id = ? LIMIT ?`,
    repeatable: true,
  }

  return {
    async read(deviceId, limit) {
      return toPartition(deviceId, limit, await run(read, [deviceId, limit + 1]))
    },
    async insert(row, ttlSeconds) {
      const { deviceId, sessionId, edgeId, edgeAddress, accountId, protocol } = row
      const epoch = BigInt(row.epoch)
      const values = [deviceId, epoch, sessionId, edgeId, edgeAddress, accountId, protocol, BigInt(row.connectedTime)]
      await run(insert, [...values, epoch, ttlSeconds])
    },
    async delete(key) {
      const epoch = BigInt(key.epoch)
      await run(remove, [epoch, key.deviceId, epoch, key.sessionId])
    },
    async writeAccountDevice(accountId, deviceId, noted) {
      await run(noteAccount, [accountId, deviceId, dayOf(noted), BigInt(noted)])
    },
    async readAccountDevice(accountId, deviceId) {
      const [row] = await run(noteOfAccount, [accountId, deviceId])
      return row === undefined ? undefined : Number(row.get('noted'))
    },
    async deleteAccountDevice(accountId, deviceId, noted) {
      await run(forgetAccount, [BigInt(noted), accountId, deviceId])
    },
    async readAccountDevices(accountId, after, limit) {
      return (await run(accountDevices, [accountId, after, limit])).map((row) => String(row.get('device_id')))
    },
    async writeTakeover(deviceId, sessionId, ttlSeconds) {
      await run(noteTakeover, [deviceId, sessionId, ttlSeconds])
    },
    async countTakeovers(deviceId, limit) {
      return (await run(takeovers, [deviceId, limit])).length
    },
    clockMicros: () => readClockMicros(run),
  }
}

function toPartition(deviceId: string, limit: number, found: readonly types.Row[]): DevicePartition {
  // A device with a hint and no session reads as one row without clustering columns.
  const rows = found.filter((row) => row.get('session_id') !== null)
  return {
    rows: rows.slice(0, limit).map(
      (row): SessionRow => ({
        deviceId,
        epoch: Number(row.get('epoch')),
        sessionId: String(row.get('session_id')),
        edgeId: String(row.get('edge_id')),
        edgeAddress: String(row.get('edge_address')),
        accountId: String(row.get('account_id') ?? ''),
        protocol: String(row.get('protocol') ?? ''),
        connectedTime: Number(row.get('connected_time') ?? 0),
      }),
    ),
    more: rows.length > limit,
    inboxUntil: Number(found[0]?.get('inbox_until') ?? 0),
  }
}
