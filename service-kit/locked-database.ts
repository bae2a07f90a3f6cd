import { DatabaseSync } from 'node:sqlite'

/** SQLITE_BUSY and SQLITE_LOCKED. */
const inUseCodes: ReadonlySet<number> = new Set([5, 6])

/**
 * Opens or creates an SQLite file for this process alone: the lock is held until the file is closed or the process ends, however it ends. What is committed
 * has been written through to the disk. Throws what SQLite throws; nothing is open then. `journalLimitBytes`: what of the write-ahead log is kept when it
 * has been written back.
 */
export function openLockedDatabase(path: string, journalLimitBytes?: number): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 0 })
  try {
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
    if (journalLimitBytes !== undefined) database.exec(`PRAGMA journal_size_limit = ${journalLimitBytes}`)
    // The first write takes the lock.
    database.exec('BEGIN IMMEDIATE; COMMIT')
    return database
  } catch (error) {
    database.close()
    throw error
  }
}

/** SQLite's code for what went wrong, without its details; undefined for an error of something else. */
export function sqliteCode(error: unknown): number | undefined {
  return error instanceof Error && 'errcode' in error && typeof error.errcode === 'number' ? error.errcode & 0xff : undefined
}

/** Whether another process has the file. */
export function isInUse(error: unknown): boolean {
  return inUseCodes.has(sqliteCode(error) ?? 0)
}
