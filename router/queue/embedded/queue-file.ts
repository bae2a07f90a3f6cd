import type { DatabaseSync, StatementSync } from 'node:sqlite'
import { isInUse, openLockedDatabase } from '../../../service-kit/locked-database.ts'
import { StartError } from '../../../service-kit/start-error.ts'
import { type Lane, lanes, type QueueRecord } from '../message-queue.ts'

/** Partitions of each lane. Part of the file's format: the key decides the partition. */
export const partitionCount = 4

/** The file is in use, cannot be opened, or is not a queue. */
export class QueueFileError extends StartError {
  override readonly name = 'QueueFileError'
}

export interface StoredRecord {
  readonly lane: Lane
  readonly partition: number
  readonly key: string
  readonly value: Uint8Array
  readonly timestampMs: number
}

export interface LetterInFile {
  readonly key: string
  readonly value: Uint8Array
  readonly timestampMs: number
}

export interface FileChanges {
  readonly records: readonly StoredRecord[]
  readonly deadLetters: readonly LetterInFile[]
  readonly commits: ReadonlyArray<{ readonly lane: Lane; readonly partition: number; readonly offset: bigint }>
  readonly auditRecords: readonly LetterInFile[]
  /** Dead letters beyond so many go, the oldest first. */
  readonly deadLetterCountMax: number
  /** Audit records beyond so many go, the oldest first. */
  readonly auditRecordCountMax: number
}

/** The SQLite file of the embedded queue. All calls block; all throw what SQLite throws. One process at a time. */
export interface QueueFile {
  /** Writes all of it, or nothing, in one transaction with one fsync. Returns how many records the commits removed. */
  write(changes: FileChanges): number
  /** Records from an offset on, in order. */
  read(lane: Lane, partition: number, from: bigint, countMax: number): QueueRecord[]
  /** Where the partition goes on after a restart. */
  committed(lane: Lane, partition: number): bigint
  /** Records that are not committed yet. */
  recordCount(): number
  /** Behind `after`, the oldest first, read one by one as they are asked for. */
  deadLetters(after?: bigint): Iterable<LetterInFile & { readonly offset: bigint }>
  deadLetterAt(offset: bigint): (LetterInFile & { readonly offset: bigint }) | undefined
  /** Oldest first. */
  auditRecords(): LetterInFile[]
  /** Returns how many there were. */
  removeDeadLettersBefore(timeMs: number): number
  close(): void
}

const schema = `
  CREATE TABLE IF NOT EXISTS records (
    lane TEXT NOT NULL, part INTEGER NOT NULL, position INTEGER NOT NULL,
    key TEXT NOT NULL, value BLOB NOT NULL, time INTEGER NOT NULL,
    PRIMARY KEY (lane, part, position)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS partitions (
    lane TEXT NOT NULL, part INTEGER NOT NULL,
    next INTEGER NOT NULL, committed INTEGER NOT NULL,
    PRIMARY KEY (lane, part)
  ) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value BLOB NOT NULL, time INTEGER NOT NULL
  );
  CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value BLOB NOT NULL, time INTEGER NOT NULL
  );
`

const journalLimitBytes = 16 * 1024 * 1024

/** Opens or creates the file. Throws QueueFileError. */
export function openQueueFile(path: string): QueueFile {
  let database: DatabaseSync | undefined
  try {
    database = openLockedDatabase(path, journalLimitBytes)
    database.exec('BEGIN IMMEDIATE')
    database.exec(schema)
    const add = database.prepare('INSERT OR IGNORE INTO partitions (lane, part, next, committed) VALUES (?, ?, 0, 0)')
    for (const lane of lanes) for (let part = 0; part < partitionCount; part++) add.run(lane, part)
    database.exec('COMMIT')
  } catch (error) {
    database?.close()
    throw new QueueFileError(
      isInUse(error)
        ? `the queue file ${path} is in use by another process: stop that one, or give this one a file of its own (ROUTER_QUEUE_PATH)`
        : `the queue file ${path} cannot be opened: ${error instanceof Error ? error.message : String(error)} (ROUTER_QUEUE_PATH)`,
      { cause: error },
    )
  }
  return queueFileOn(database)
}

function queueFileOn(database: DatabaseSync): QueueFile {
  const statement = (sql: string): StatementSync => {
    const prepared = database.prepare(sql)
    prepared.setReadBigInts(true)
    return prepared
  }
  const takeOffset = statement('UPDATE partitions SET next = next + 1 WHERE lane = ? AND part = ? RETURNING next')
  const insert = statement('INSERT INTO records (lane, part, position, key, value, time) VALUES (?, ?, ?, ?, ?, ?)')
  const insertDead = statement('INSERT INTO dead_letters (key, value, time) VALUES (?, ?, ?)')
  const trimDead = statement('DELETE FROM dead_letters WHERE id <= (SELECT max(id) FROM dead_letters) - ?')
  const insertAudit = statement('INSERT INTO audit (key, value, time) VALUES (?, ?, ?)')
  const trimAudit = statement('DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - ?')
  const selectAudit = statement('SELECT id, key, value, time FROM audit ORDER BY id')
  const commit = statement('UPDATE partitions SET committed = ?3 WHERE lane = ?1 AND part = ?2 AND committed < ?3')
  const remove = statement('DELETE FROM records WHERE lane = ? AND part = ? AND position < ?')
  const select = statement(
    'SELECT position, key, value, time FROM records WHERE lane = ? AND part = ? AND position >= ? ORDER BY position LIMIT ?',
  )
  const selectCommitted = statement('SELECT committed FROM partitions WHERE lane = ? AND part = ?')
  const count = statement('SELECT count(*) AS count FROM records')
  const selectDead = statement('SELECT id, key, value, time FROM dead_letters WHERE id > ? ORDER BY id')
  const selectDeadAt = statement('SELECT id, key, value, time FROM dead_letters WHERE id = ?')
  const removeDead = statement('DELETE FROM dead_letters WHERE time < ?')
  const letterOf = (row: Record<string, unknown>) => ({
    offset: whole(row.id),
    key: String(row.key),
    value: bytes(row.value),
    timestampMs: Number(row.time),
  })

  const apply = (changes: FileChanges): number => {
    const { records, deadLetters, auditRecords, commits } = changes
    for (const { lane, partition, key, value, timestampMs } of records) {
      const offset = whole(takeOffset.get(lane, partition)?.next) - 1n
      insert.run(lane, partition, offset, key, value, Math.trunc(timestampMs))
    }
    for (const { key, value, timestampMs } of deadLetters) insertDead.run(key, value, Math.trunc(timestampMs))
    if (deadLetters.length > 0) trimDead.run(changes.deadLetterCountMax)
    for (const { key, value, timestampMs } of auditRecords) insertAudit.run(key, value, Math.trunc(timestampMs))
    if (auditRecords.length > 0) trimAudit.run(changes.auditRecordCountMax)
    let removed = 0
    for (const { lane, partition, offset } of commits) {
      commit.run(lane, partition, offset)
      removed += Number(remove.run(lane, partition, offset).changes)
    }
    return removed
  }

  return {
    write(changes) {
      database.exec('BEGIN IMMEDIATE')
      try {
        const removed = apply(changes)
        database.exec('COMMIT')
        return removed
      } catch (error) {
        // SQLite has rolled back by itself where the disk is full.
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
    },
    read: (lane, partition, from, countMax) =>
      select.all(lane, partition, from, countMax).map((row) => ({
        lane,
        partition,
        offset: whole(row.position),
        key: String(row.key),
        value: bytes(row.value),
        timestampMs: Number(row.time),
      })),
    committed: (lane, partition) => whole(selectCommitted.get(lane, partition)?.committed),
    recordCount: () => Number(count.get()?.count),
    *deadLetters(after = 0n) {
      for (const row of selectDead.iterate(after)) yield letterOf(row)
    },
    deadLetterAt(offset) {
      const row = selectDeadAt.get(offset)
      return row && letterOf(row)
    },
    auditRecords: () => selectAudit.all().map(letterOf),
    removeDeadLettersBefore: (timeMs) => Number(removeDead.run(Math.ceil(timeMs)).changes),
    close: () => database.close(),
  }
}

function whole(value: unknown): bigint {
  if (typeof value !== 'bigint') throw new Error(`the queue file holds ${typeof value} where a whole number belongs`)
  return value
}

function bytes(value: unknown): Uint8Array {
  if (!(value instanceof Uint8Array)) throw new Error(`the queue file holds ${typeof value} where bytes belong`)
  return value
}
