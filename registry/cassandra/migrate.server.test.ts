import { type Client, errors, types } from 'cassandra-driver'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import type { CassandraSettings } from './client.ts'
import { migrateCassandra } from './migrate.ts'
import { migrations as allMigrations, type Migration } from './migrations/index.ts'
import { dropKeyspace, freshSettings, openClient } from './test-keyspace.ts'

let settings: CassandraSettings
let client: Client
beforeEach(async () => {
  settings = freshSettings()
  client = await openClient(settings)
})
afterEach(async () => {
  await dropKeyspace(client, settings)
  await client.shutdown()
})

const kit = { clock: systemClock, random: systemRandom, log: silentLog }
const step = (version: number): Migration => ({
  version,
  name: `step ${version}`,
  statements: (keyspace) => [`CREATE TABLE IF NOT EXISTS ${keyspace}.step_${version} (id int PRIMARY KEY)`],
})
const versions = async () => {
  const { rows } = await client.execute(`SELECT version, name, applied_time FROM ${settings.keyspace}.registry_schema`)
  return rows.filter((row) => row.get('version') !== null).map((row) => `${row.get('version')} ${row.get('name')}`)
}
const tables = async () => {
  const { rows } = await client.execute('SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?', [
    settings.keyspace,
  ])
  return rows.map((row) => String(row.get('table_name'))).sort()
}

test('an empty cluster gets the keyspace and every table, and a second start changes nothing', async () => {
  await migrateCassandra(client, { settings, ...kit })
  expect(await tables()).toEqual([
    'account_devices',
    'device_sessions',
    'edges',
    'inbox',
    'receipts',
    'registry_schema',
    'session_takeovers',
  ])
  const log = recordingLog()
  await migrateCassandra(client, { settings, ...kit, log })
  expect(log.entries).toEqual([])
  expect(await versions()).toEqual(['1 sessions, account devices, edges', '2 inbox, receipts', '3 session takeovers'])
})

test('steps are applied in order, each once', async () => {
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })
  const log = recordingLog()
  await migrateCassandra(client, { settings, ...kit, log, migrations: [step(1), step(2), step(3)] })
  expect(log.entries.map(({ facts }) => facts.version)).toEqual([2, 3])
  expect(await versions()).toEqual(['1 step 1', '2 step 2', '3 step 3'])
})

test('a keyspace of the first version gets what came later, and keeps its rows', async () => {
  const first = allMigrations.slice(0, 1)
  await migrateCassandra(client, { settings, ...kit, migrations: first })
  await client.execute(`INSERT INTO ${settings.keyspace}.account_devices (account_id, device_id) VALUES ('a', 'd')`)
  await migrateCassandra(client, { settings, ...kit })
  expect(await tables()).toContain('inbox')
  const { rows } = await client.execute(`SELECT device_id FROM ${settings.keyspace}.account_devices`)
  expect(rows.map((row) => row.get('device_id'))).toEqual(['d'])
})

test('registries that start at once take turns, and each step is applied once', async () => {
  const clients = await Promise.all(Array.from({ length: 4 }, () => openClient(settings)))
  const log = recordingLog()
  await Promise.all(
    clients.map((one) => migrateCassandra(one, { settings, ...kit, log, migrations: [step(1), step(2), step(3)] })),
  )
  expect(log.entries.map(({ facts }) => facts.version)).toEqual([1, 2, 3])
  expect(await tables()).toEqual(['registry_schema', 'step_1', 'step_2', 'step_3'])
  await Promise.all(clients.map((one) => one.shutdown()))
})

const tableMissing = new errors.ResponseError(types.responseErrorCodes.invalid, 'table registry_schema does not exist')
const storageMissing = new errors.ResponseError(
  types.responseErrorCodes.serverError,
  'java.lang.IllegalArgumentException: Unknown CF a8a0d504-dc89-8001-89b4-34acfd7c3383',
)

/** The client, but the first queries that begin so find the table unreadable. */
function early(beginning: string, refusals = [tableMissing, tableMissing]) {
  const told = { refused: 0 }
  const proxy = new Proxy(client, {
    get(target, property) {
      if (property !== 'execute') return Reflect.get(target, property)
      return (query: string, ...rest: [unknown[], object]) => {
        if (!query.startsWith(beginning) || told.refused >= refusals.length) return target.execute(query, ...rest)
        throw refusals[told.refused++]
      }
    },
  })
  return { told, proxy }
}

test('a table that another registry has just made, listed but not readable yet, is waited for', async () => {
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })
  const { told, proxy } = early('SELECT version')
  await migrateCassandra(proxy, { settings, ...kit, migrations: [step(1), step(2)] })
  expect(told.refused).toBe(2)
  expect(await versions()).toEqual(['1 step 1', '2 step 2'])
})

test('so is a table that another registry makes at this very moment', async () => {
  const { told, proxy } = early('UPDATE', [tableMissing, storageMissing])
  await migrateCassandra(proxy, { settings, ...kit, migrations: [step(1)] })
  expect(told.refused).toBe(2)
  expect(await versions()).toEqual(['1 step 1'])
})

test('of several nodes, one that has not heard of the table fails what asks it along: that is waited for too', async () => {
  const { readFailure, writeFailure, writeTimeout } = types.responseErrorCodes
  const failure = (code: number) =>
    new errors.ResponseError(code, '2 responses were required but only 1 replica responded, 1 failed')
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })
  const reads = early('SELECT version', [failure(readFailure)])
  await migrateCassandra(reads.proxy, { settings, ...kit, migrations: [step(1), step(2)] })
  const locks = early('UPDATE', [failure(writeFailure), failure(writeTimeout)])
  await migrateCassandra(locks.proxy, { settings, ...kit, migrations: [step(1), step(2), step(3)] })
  expect([reads.told.refused, locks.told.refused]).toEqual([1, 2])
  expect(await versions()).toEqual(['1 step 1', '2 step 2', '3 step 3'])
})

test('a lock that was taken though its call failed is not waited for', async () => {
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })
  let taken = 0
  const proxy = new Proxy(client, {
    get(target, property) {
      if (property !== 'execute') return Reflect.get(target, property)
      return async (query: string, ...rest: [unknown[], object]) => {
        const result = await target.execute(query, ...rest)
        if (query.startsWith('UPDATE') && taken++ === 0)
          throw new errors.ResponseError(types.responseErrorCodes.writeFailure, 'failed')
        return result
      }
    },
  })
  const begun = performance.now()
  await migrateCassandra(proxy, { settings, ...kit, migrations: [step(1), step(2)] })
  expect(await versions()).toEqual(['1 step 1', '2 step 2'])
  // Far less than the minute after which a lock is free by itself.
  expect(performance.now() - begun).toBeLessThan(30_000)
})

test('a step that ended halfway is done again', async () => {
  const broken: Migration = { ...step(1), statements: (keyspace) => [...step(1).statements(keyspace), 'CREATE NONSENSE'] }
  await expect(migrateCassandra(client, { settings, ...kit, migrations: [broken] })).rejects.toThrow()
  expect(await versions()).toEqual([])
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })
  expect(await versions()).toEqual(['1 step 1'])
})

test('a schema that is newer than this version is a clear error', async () => {
  await migrateCassandra(client, { settings, ...kit, migrations: [step(1), step(2)] })
  const error = `keyspace ${settings.keyspace} has schema 2, this version knows 1; start a newer version`
  await expect(migrateCassandra(client, { settings, ...kit, migrations: [step(1)] })).rejects.toThrow(error)
})

test('a keyspace that is missing is created only when told so', async () => {
  const untold = { ...settings, createKeyspace: false }
  const error = `keyspace ${settings.keyspace} does not exist; create it, or set REGISTRY_CASSANDRA_CREATE_KEYSPACE=true`
  await expect(migrateCassandra(client, { settings: untold, ...kit })).rejects.toThrow(error)
  await migrateCassandra(client, { settings, ...kit })
  await migrateCassandra(client, { settings: untold, ...kit })
})
