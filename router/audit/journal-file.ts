import type { DatabaseSync } from 'node:sqlite'
import { isInUse, openLockedDatabase } from '../../service-kit/locked-database.ts'
import { StartError } from '../../service-kit/start-error.ts'

/** The journal is in use, cannot be opened, or is no journal. */
export class AuditJournalError extends StartError {
  override readonly name = 'AuditJournalError'
}

/** One record that waits in the journal. */
export interface JournalRecord {
  readonly key: string
  readonly value: Uint8Array
}

/**
 * A file in which audit records wait for the queue, oldest first. All calls block; all throw what SQLite throws. One process at a time: the file is
 * locked until that process ends, however it ends.
 */
export interface AuditJournal {
  /** Writes all of them, or none, with one fsync. */
  append(records: readonly JournalRecord[]): void
  /** The oldest, at most so many. */
  oldest(countMax: number): (JournalRecord & { readonly id: number })[]
  /** Removes those up to this id. */
  removeUpTo(id: number): void
  /** How many wait. */
  readonly count: number
  close(): void
}

const journalLimitBytes = 4 * 1024 * 1024

/** Opens or creates the file; its folder must be there. What a crash has left half written is not in it. Throws AuditJournalError. */
export function openAuditJournal(path: string): AuditJournal {
  let database: DatabaseSync | undefined
  try {
    database = openLockedDatabase(path, journalLimitBytes)
    // Ids only rise, also after the file was empty: they are the order of the records.
    database.exec(
      'CREATE TABLE IF NOT EXISTS waiting (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, value BLOB NOT NULL)',
    )
    return journalOn(database)
  } catch (error) {
    database?.close()
    const words = error instanceof Error ? error.message : String(error)
    throw new AuditJournalError(
      isInUse(error)
        ? `the audit journal ${path} is in use by another process: give each router a file of its own (ROUTER_AUDIT_PATH)`
        : `the audit journal ${path} cannot be opened: ${words} (ROUTER_AUDIT_PATH); it may hold records that nobody else has: move it, do not delete it`,
      { cause: error },
    )
  }
}

function journalOn(database: DatabaseSync): AuditJournal {
  const insert = database.prepare('INSERT INTO waiting (key, value) VALUES (?, ?)')
  const select = database.prepare('SELECT id, key, value FROM waiting ORDER BY id LIMIT ?')
  const remove = database.prepare('DELETE FROM waiting WHERE id <= ?')
  let count = Number(database.prepare('SELECT count(*) AS count FROM waiting').get()?.count)
  return {
    append(records) {
      database.exec('BEGIN IMMEDIATE')
      try {
        for (const { key, value } of records) insert.run(key, value)
        database.exec('COMMIT')
      } catch (error) {
        // SQLite has rolled back by itself where the disk is full.
        if (database.isTransaction) database.exec('ROLLBACK')
        throw error
      }
      count += records.length
    },
    oldest: (countMax) =>
      select.all(countMax).map(({ id, key, value }) => {
        if (!(value instanceof Uint8Array)) throw new Error('the audit journal holds no bytes where a record belongs')
        return { id: Number(id), key: String(key), value }
      }),
    removeUpTo(id) {
      count -= Number(remove.run(id).changes)
    },
    get count() {
      return count
    },
    close() {
      if (database.isOpen) database.close()
    },
  }
}
