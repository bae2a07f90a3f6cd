import { Client } from 'cassandra-driver'
import { inject } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { randomSuffix } from '../../service-kit/ids.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import type { RegistryStores } from '../stores.ts'
import { type CassandraSettings, driverOptions } from './client.ts'
import { openCassandraStores } from './stores.ts'

/** Settings for a keyspace that no other test has. */
export function freshSettings(): CassandraSettings {
  const { contactPoints, port, localDataCenter } = inject('cassandra')
  return {
    contactPoints,
    port,
    localDataCenter,
    keyspace: `registry_${randomSuffix(systemRandom, 10)}`,
    createKeyspace: true,
    replicationFactor: 1,
    user: undefined,
    password: undefined,
    readTimeoutMs: 6000,
    connectTimeoutMs: 10_000,
  }
}

/** Stores on a keyspace of their own, a client that works behind their back, and a `close` that leaves nothing. */
export async function openTestStores(): Promise<{
  stores: RegistryStores
  settings: CassandraSettings
  client: Client
  close(): Promise<void>
}> {
  const settings = freshSettings()
  const kit = { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() }
  const stores = await openCassandraStores(settings, kit)
  const client = await openClient(settings)
  return {
    stores,
    settings,
    client,
    async close() {
      await stores.close()
      await dropKeyspace(client, settings)
      await client.shutdown()
    },
  }
}

/** A client of the test's own. */
export async function openClient(settings: CassandraSettings): Promise<Client> {
  const client = new Client(driverOptions(settings))
  await client.connect()
  return client
}

/** Leaves the server as it was found. */
export async function dropKeyspace(client: Client, { keyspace }: CassandraSettings): Promise<void> {
  await client.execute(`DROP KEYSPACE IF EXISTS ${keyspace}`, [], { prepare: false, readTimeout: 30_000 })
}
