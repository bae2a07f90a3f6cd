import type { Client } from 'cassandra-driver'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import type { RegistryStores } from '../stores.ts'
import { type CassandraSettings, connectCassandra } from './client.ts'
import { createCassandraEdgeStore } from './edge-store.ts'
import { createCassandraInboxStore } from './inbox-store.ts'
import { migrateCassandra } from './migrate.ts'
import { createCassandraReceiptStore } from './receipt-store.ts'
import { createCassandraSessionStore } from './session-store.ts'
import { createStatementRunner } from './statements.ts'

/** Connects to Cassandra, brings its schema up to date and opens the stores on it. */
export async function openCassandraStores(
  settings: CassandraSettings,
  kit: { clock: Clock; random: Random; log: Log; metrics: Metrics },
): Promise<RegistryStores> {
  const client = await connectCassandra(settings, kit)
  const close = () => client.shutdown()
  try {
    await migrateCassandra(client, { settings, ...kit })
    await warnOfServerTimeouts(client, settings.readTimeoutMs, kit.log)
  } catch (error) {
    await close()
    throw error
  }
  const run = createStatementRunner(client, kit.metrics)
  return {
    sessions: { ...createCassandraSessionStore(run, settings.keyspace), close },
    edges: { ...createCassandraEdgeStore(run, settings.keyspace), close },
    inbox: { ...createCassandraInboxStore(run, settings.keyspace), close },
    receipts: { ...createCassandraReceiptStore(run, settings.keyspace), close },
    close,
  }
}

/** A server that waits longer than we do leaves every slow statement unanswered instead of telling us that it failed. */
async function warnOfServerTimeouts(client: Client, readTimeoutMs: number, log: Log): Promise<void> {
  const names = ['read_request_timeout', 'write_request_timeout']
  for (const name of names) {
    const { rows } = await client.execute('SELECT value FROM system_views.settings WHERE name = ?', [name], { prepare: true })
    const serverMs = Number.parseInt(String(rows[0]?.get('value')), 10)
    if (String(rows[0]?.get('value')).endsWith('ms') && serverMs >= readTimeoutMs) {
      log.warn('cassandra waits longer than this registry', {
        setting: name,
        server_ms: serverMs,
        read_timeout_ms: readTimeoutMs,
      })
    }
  }
}
