import type { EdgeStore } from '../edge-store.ts'
import type { RunStatement, Statement } from './statements.ts'
import { readClockMicros } from './store-clock.ts'

/** The leases are spread over so many partitions. Part of the table's contract: it cannot be changed under live edges. */
const shardCount = 16

/** Leases in Cassandra. They end by their TTL, by the servers' clocks. */
export function createCassandraEdgeStore(run: RunStatement, keyspace: string): Omit<EdgeStore, 'close'> {
  const write: Statement = {
    query: `INSERT INTO ${keyspace}.edges (shard, edge_id, name, address, zone, connection_count, connection_limit, draining)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TTL ?`,
    // The server stamps it, as registries' clocks differ: sent twice, an old renewal could land on top of a newer one.
    repeatable: false,
  }
  const readShard: Statement = {
    query: `SELECT edge_id, name, address, zone, connection_count, connection_limit, draining, TTL(name) AS remaining_seconds
            FROM ${keyspace}.edges WHERE shard = ?`,
    repeatable: true,
  }

  return {
    async writeLease(edge, ttlSeconds) {
      const { edgeId, name, address, zone, connectionCount, connectionLimit, draining } = edge
      const values = [shardOf(edgeId), edgeId, name, address, zone, connectionCount, connectionLimit, draining]
      await run(write, [...values, ttlSeconds])
    },
    async readAll() {
      const shards = await Promise.all(Array.from({ length: shardCount }, (_, shard) => run(readShard, [shard])))
      return shards.flat().map((row) => ({
        edge: {
          edgeId: String(row.get('edge_id')),
          name: String(row.get('name')),
          address: String(row.get('address')),
          zone: String(row.get('zone') ?? ''),
          connectionCount: Number(row.get('connection_count') ?? 0),
          connectionLimit: Number(row.get('connection_limit') ?? 0),
          draining: row.get('draining') === true,
        },
        remainingMs: Number(row.get('remaining_seconds') ?? 0) * 1000,
      }))
    },
    clockMicros: () => readClockMicros(run),
  }
}

function shardOf(edgeId: string): number {
  let hash = 0
  for (let at = 0; at < edgeId.length; at += 1) hash = (hash * 31 + edgeId.charCodeAt(at)) >>> 0
  return hash % shardCount
}
