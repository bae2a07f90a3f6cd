import { type Client, errors, types } from 'cassandra-driver'
import type { Clock } from '../../service-kit/clock.ts'
import { randomSuffix, uuidV8FromHash } from '../../service-kit/ids.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Random } from '../../service-kit/random.ts'
import { StartError } from '../../service-kit/start-error.ts'
import type { CassandraSettings } from './client.ts'
import { migrations as allMigrations, type Migration } from './migrations/index.ts'

/** How long a registry that ends while it migrates keeps the others waiting. */
const lockTtlSeconds = 60
const lockWaitMaxMs = 120_000
const lockRetryMs = 250
/** A node lists a table, or says that it exists already, a moment before it can read it; other nodes hear of it later still. */
const readableWaitMaxMs = 30_000
const readableRetryMs = 100
/** Changing the schema of a loaded cluster takes longer than any read. */
const schemaTimeoutMs = 30_000

type MigrateOptions = {
  readonly settings: Pick<CassandraSettings, 'keyspace' | 'createKeyspace' | 'replicationFactor' | 'localDataCenter'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly migrations?: readonly Migration[]
}

/**
 * Brings the keyspace to the schema that this version knows. Registries that start together take turns by a lock in the
 * keyspace itself. A keyspace that is missing, or newer than this version, is an error that says what to do.
 */
export async function migrateCassandra(client: Client, options: MigrateOptions): Promise<void> {
  const { settings, clock, random, log, migrations = allMigrations } = options
  const { keyspace } = settings
  const known = migrations.at(-1)?.version ?? 0
  const table = `${keyspace}.registry_schema`
  const holder = randomSuffix(random, 16)

  const change = (query: string) => client.execute(query, [], { prepare: false, readTimeout: schemaTimeoutMs })
  const conditional = async (query: string, values: (string | number)[]): Promise<boolean> => {
    // Across data centres too: one schema, one lock.
    const serialConsistency = types.consistencies.serial
    const result = await client.execute(query, values, { prepare: true, serialConsistency, readTimeout: schemaTimeoutMs })
    return result.wasApplied()
  }
  const applied = async (): Promise<number> => {
    const { rows } = await client.execute(`SELECT version FROM ${table} WHERE part = 'registry'`, [], { prepare: true })
    const version = Math.max(0, ...rows.map((row) => Number(row.get('version') ?? 0)))
    if (version > known) {
      throw new StartError(`keyspace ${keyspace} has schema ${version}, this version knows ${known}; start a newer version`)
    }
    return version
  }
  const onceReadable = async <T>(ask: () => Promise<T>): Promise<T> => {
    for (const giveUpAt = clock.monotonic() + readableWaitMaxMs; ; await clock.sleep(readableRetryMs)) {
      try {
        return await ask()
      } catch (error) {
        if (!isUnreadable(error) || clock.monotonic() >= giveUpAt) throw error
      }
    }
  }
  const hold = async (free: boolean): Promise<boolean> =>
    free
      ? conditional(`UPDATE ${table} USING TTL ${lockTtlSeconds} SET holder = ? WHERE part = 'registry' IF holder = null`, [
          holder,
        ])
      : conditional(`UPDATE ${table} USING TTL ${lockTtlSeconds} SET holder = ? WHERE part = 'registry' IF holder = ?`, [
          holder,
          holder,
        ])

  await ensureKeyspace(client, settings, change)
  if (await tableExists(client, keyspace, 'registry_schema')) {
    if ((await onceReadable(applied)) === known) return
  } else {
    // Nothing guards this first table. An id that all would choose makes what two create at once the same table.
    const id = uuidV8FromHash([keyspace, 'registry_schema'])
    await change(
      `CREATE TABLE IF NOT EXISTS ${table} (part text, version int, holder text STATIC, name text, applied_time timestamp,
         PRIMARY KEY (part, version)) WITH ID = ${id}`,
    )
  }

  const giveUpAt = clock.monotonic() + lockWaitMaxMs
  let unsure = false
  const take = () =>
    onceReadable(async () => {
      // A first attempt that failed may have been carried out all the same.
      const again = unsure
      unsure = true
      const held = (await hold(true)) || (again && (await hold(false)))
      unsure = false
      return held
    })
  while (!(await take())) {
    if ((await onceReadable(applied)) === known) return
    if (clock.monotonic() >= giveUpAt) {
      throw new StartError(
        `another registry has been changing the schema of keyspace ${keyspace} for ${lockWaitMaxMs} ms; see its log`,
      )
    }
    await clock.sleep(lockRetryMs)
  }
  try {
    const from = await onceReadable(applied)
    for (const { version, name, statements } of migrations.filter((migration) => migration.version > from)) {
      for (const statement of statements(keyspace)) {
        if (!(await onceReadable(() => hold(false))))
          throw new StartError(`lost the lock on the schema of keyspace ${keyspace}; start again`)
        await change(statement)
      }
      await onceReadable(() =>
        client.execute(
          `INSERT INTO ${table} (part, version, name, applied_time) VALUES ('registry', ?, ?, toTimestamp(now()))`,
          [version, name],
          { prepare: true },
        ),
      )
      log.info('schema migrated', { keyspace, version, name })
    }
  } finally {
    const free = () => conditional(`UPDATE ${table} SET holder = null WHERE part = 'registry' IF holder = ?`, [holder])
    await onceReadable(free).catch((cause: unknown) => log.warn('the lock on the schema runs out by itself', { cause }))
  }
}

/**
 * The table is not there yet, as the statement's own check says, or its storage when the statement gets that far; or, of several nodes, one that is asked
 * along has not heard of it yet and fails, or is busy with what others have just changed. Whatever is asked here may be asked again.
 */
function isUnreadable(error: unknown): boolean {
  if (!(error instanceof errors.ResponseError)) return false
  const { invalid, serverError, ...codes } = types.responseErrorCodes
  const passing = [codes.readFailure, codes.writeFailure, codes.readTimeout, codes.writeTimeout, codes.unavailableException]
  if (passing.includes(error.code)) return true
  return error.code === invalid || (error.code === serverError && error.message.includes('Unknown CF'))
}

async function ensureKeyspace(
  client: Client,
  { keyspace, createKeyspace, replicationFactor, localDataCenter }: MigrateOptions['settings'],
  change: (query: string) => Promise<unknown>,
): Promise<void> {
  const { rows } = await client.execute('SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?', [keyspace], {
    prepare: true,
  })
  if (rows.length > 0) return
  if (!createKeyspace) {
    throw new StartError(`keyspace ${keyspace} does not exist; create it, or set REGISTRY_CASSANDRA_CREATE_KEYSPACE=true`)
  }
  await change(
    `CREATE KEYSPACE IF NOT EXISTS ${keyspace}
       WITH replication = {'class': 'NetworkTopologyStrategy', '${localDataCenter}': ${replicationFactor}}`,
  )
}

async function tableExists(client: Client, keyspace: string, table: string): Promise<boolean> {
  const { rows } = await client.execute(
    'SELECT table_name FROM system_schema.tables WHERE keyspace_name = ? AND table_name = ?',
    [keyspace, table],
    { prepare: true },
  )
  return rows.length > 0
}
