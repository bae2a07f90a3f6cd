import { Client, types } from 'cassandra-driver'
import type { CassandraAddresses } from '../servers/cassandra.ts'

/** Reads the ids of the sessions that have rows, newest first, of every device that has any, past all services. */
export async function readSessionRows(cassandra: CassandraAddresses, keyspace: string): Promise<Map<string, string[]>> {
  const { contactPoints, port, localDataCenter } = cassandra
  const client = new Client({ contactPoints: [...contactPoints], localDataCenter, protocolOptions: { port } })
  try {
    const sessions = new Map<string, string[]>()
    // Rows of one device come together, in their order.
    const rows = await client.execute(`SELECT device_id, session_id FROM ${keyspace}.device_sessions`, [], {
      consistency: types.consistencies.localQuorum,
      prepare: true,
    })
    for await (const row of rows) {
      const deviceId = String(row.get('device_id'))
      const sessionId: unknown = row.get('session_id')
      // A device that has nothing but the inbox hint reads as one row without keys.
      if (sessionId !== null) sessions.set(deviceId, [...(sessions.get(deviceId) ?? []), String(sessionId)])
    }
    return sessions
  } finally {
    await client.shutdown()
  }
}
