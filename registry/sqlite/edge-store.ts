import type { Clock } from '../../service-kit/clock.ts'
import type { EdgeStore } from '../edge-store.ts'
import { storeUnavailable } from '../stores.ts'
import type { SqliteDatabase } from './database.ts'

/** Leases in a SQLite file. The clock decides when they end. */
export function createSqliteEdgeStore(database: SqliteDatabase, clock: Clock): EdgeStore {
  const { connection } = database
  const write = connection.prepare(
    `INSERT INTO edges (edge_id, name, address, zone, connection_count, connection_limit, draining, ends_at)
     VALUES (?, ?, ?, ?, ?, ?, ?, ?)
     ON CONFLICT DO UPDATE SET name = excluded.name, address = excluded.address, zone = excluded.zone,
       connection_count = excluded.connection_count, connection_limit = excluded.connection_limit,
       draining = excluded.draining, ends_at = excluded.ends_at`,
  )
  const all = connection.prepare('SELECT * FROM edges WHERE ends_at > ?')

  return {
    writeLease(edge, ttlSeconds) {
      return database.write(() => {
        const { edgeId, name, address, zone, connectionCount, connectionLimit, draining } = edge
        const endsAt = clock.now() + ttlSeconds * 1000
        write.run(edgeId, name, address, zone, connectionCount, connectionLimit, draining ? 1 : 0, endsAt)
      })
    },
    async readAll() {
      try {
        const now = clock.now()
        return all.all(now).map((columns) => ({
          edge: {
            edgeId: String(columns.edge_id),
            name: String(columns.name),
            address: String(columns.address),
            zone: String(columns.zone),
            connectionCount: Number(columns.connection_count),
            connectionLimit: Number(columns.connection_limit),
            draining: columns.draining === 1,
          },
          remainingMs: Number(columns.ends_at) - now,
        }))
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
