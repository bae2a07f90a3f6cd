import type { DatabaseSync } from 'node:sqlite'
import { isInUse, openLockedDatabase, sqliteCode } from '../../service-kit/locked-database.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { storeUnavailable } from '../stores.ts'

/**
 * The steps of the schema: a file that has seen the first n of them is of version n, and keeps that number itself. A step that
 * has been released is never changed: later needs are later steps.
 */
const schemaSteps = [
  `
  CREATE TABLE device_sessions (
    device_id TEXT NOT NULL, epoch INTEGER NOT NULL, session_id TEXT NOT NULL,
    edge_id TEXT NOT NULL, edge_address TEXT NOT NULL, account_id TEXT NOT NULL, protocol TEXT NOT NULL,
    connected_time INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, epoch DESC, session_id DESC)
  ) WITHOUT ROWID;
  CREATE INDEX device_sessions_ends ON device_sessions (ends_at);
  CREATE TABLE session_tombstones (
    device_id TEXT NOT NULL, epoch INTEGER NOT NULL, session_id TEXT NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, epoch, session_id)
  ) WITHOUT ROWID;
  CREATE INDEX session_tombstones_ends ON session_tombstones (ends_at);
  CREATE TABLE device_hints (
    device_id TEXT PRIMARY KEY, inbox_until INTEGER NOT NULL, ends_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX device_hints_ends ON device_hints (ends_at);
  CREATE TABLE account_devices (
    account_id TEXT NOT NULL, device_id TEXT NOT NULL, last_seen_day INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (account_id, device_id)
  ) WITHOUT ROWID;
  CREATE INDEX account_devices_ends ON account_devices (ends_at);
  CREATE TABLE edges (
    edge_id TEXT PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, zone TEXT NOT NULL,
    connection_count INTEGER NOT NULL, connection_limit INTEGER NOT NULL, draining INTEGER NOT NULL, ends_at INTEGER NOT NULL
  ) WITHOUT ROWID;
  CREATE INDEX edges_ends ON edges (ends_at);`,
  `
  CREATE TABLE inbox (
    device_id TEXT NOT NULL, message_id TEXT NOT NULL,
    priority INTEGER NOT NULL, recovery INTEGER NOT NULL, accept_time INTEGER NOT NULL, expire_time INTEGER NOT NULL,
    collapse_key TEXT NOT NULL, size INTEGER NOT NULL, message BLOB NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, message_id)
  );
  CREATE INDEX inbox_ends ON inbox (ends_at);
  CREATE TABLE inbox_tombstones (
    device_id TEXT NOT NULL, message_id TEXT NOT NULL, accept_time INTEGER NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, message_id)
  ) WITHOUT ROWID;
  CREATE INDEX inbox_tombstones_ends ON inbox_tombstones (ends_at);
  CREATE TABLE receipts (
    message_id TEXT NOT NULL, device_id TEXT NOT NULL, state INTEGER NOT NULL,
    time INTEGER NOT NULL, receipt BLOB NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (message_id, device_id, state)
  );
  CREATE INDEX receipts_ends ON receipts (ends_at);`,
  `
  CREATE TABLE session_takeovers (
    device_id TEXT NOT NULL, session_id TEXT NOT NULL, ends_at INTEGER NOT NULL,
    PRIMARY KEY (device_id, session_id)
  ) WITHOUT ROWID;
  CREATE INDEX session_takeovers_ends ON session_takeovers (ends_at);`,
]
const schemaVersion = schemaSteps.length

/** A registry's SQLite file, held by this process alone. */
export interface SqliteDatabase {
  readonly connection: DatabaseSync
  /**
   * Runs a write together with all others of this turn of the event loop, in one transaction and one fsync. Resolves when
   * it is on disk. When the transaction fails all its writes fail, and none has happened.
   */
  write(run: () => void): Promise<void>
  /** Writes what waits, and gives the file back. */
  close(): Promise<void>
}

interface WaitingWrite {
  readonly run: () => void
  readonly done: PromiseWithResolvers<void>
}

/**
 * Opens the file, or creates it. `:memory:` keeps everything in memory. A file that another process has open, that is not
 * a database, or that a newer version has written is an error that names it.
 */
export function openSqliteDatabase(path: string, metrics: Metrics): SqliteDatabase {
  const commitSeconds = metrics.histogram(
    'push_registry_sqlite_commit_seconds',
    'How long a transaction with its fsync takes; it holds up everything else in the process',
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1],
  )
  const connection = openFile(path)
  let waiting: WaitingWrite[] = []
  let scheduled: NodeJS.Immediate | undefined
  let closed = false

  const commit = () => {
    scheduled = undefined
    const batch = waiting
    waiting = []
    if (batch.length === 0) return
    const end = commitSeconds.startTimer()
    try {
      connection.exec('BEGIN IMMEDIATE')
      for (const { run } of batch) run()
      connection.exec('COMMIT')
    } catch (cause) {
      if (connection.isTransaction) connection.exec('ROLLBACK')
      for (const { done } of batch) done.reject(storeUnavailable(cause))
      return
    }
    end()
    for (const { done } of batch) done.resolve()
  }

  return {
    connection,
    write(run) {
      if (closed) return Promise.reject(storeUnavailable(new Error('the file is closed')))
      const done = Promise.withResolvers<void>()
      waiting.push({ run, done })
      scheduled ??= setImmediate(commit)
      return done.promise
    },
    async close() {
      if (closed) return
      closed = true
      if (scheduled !== undefined) clearImmediate(scheduled)
      commit()
      connection.close()
    },
  }
}

function openFile(path: string): DatabaseSync {
  let connection: DatabaseSync | undefined
  try {
    connection = openLockedDatabase(path)
    migrate(connection, path)
    return connection
  } catch (cause) {
    connection?.close()
    throw openError(path, cause)
  }
}

function migrate(connection: DatabaseSync, path: string): void {
  const version = Number(connection.prepare('PRAGMA user_version').get()?.user_version)
  if (version > schemaVersion) {
    throw new StartError(
      `${path} was written by a newer version (schema ${version}, known is ${schemaVersion}); use that version, or another file`,
    )
  }
  if (version === schemaVersion) return
  const steps = schemaSteps.slice(version).join('\n')
  connection.exec(`BEGIN IMMEDIATE; ${steps} PRAGMA user_version = ${schemaVersion}; COMMIT`)
}

function openError(path: string, cause: unknown): unknown {
  if (isInUse(cause))
    return new StartError(`${path} is in use by another process; end that one, or choose another file`, { cause })
  const code = sqliteCode(cause)
  if (code === 14) return new StartError(`${path} cannot be opened; its folder must exist and be writable`, { cause })
  if (code === 26) return new StartError(`${path} is not a registry database; choose another file`, { cause })
  return cause
}
