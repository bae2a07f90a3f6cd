import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { StartError } from '../service-kit/start-error.ts'

/** The folder is in use, or cannot be used. */
export class DataFolderError extends StartError {
  override readonly name = 'DataFolderError'
}

/** A folder that belongs to this process until `release`. */
export interface DataFolder {
  /** Absolute path. */
  readonly path: string
  /** Path of a file in it. */
  file(name: string): string
  /** Lets another process have it. */
  release(): void
}

/**
 * Takes the folder for this process; makes it when missing. Throws DataFolderError, which names the process that has it.
 * The lock is an open transaction on a database in the folder: it ends with the process, however that ends, so that nothing stale is left.
 */
export function takeDataFolder(folder: string): DataFolder {
  const path = resolve(folder)
  const pidFile = join(path, 'pid')
  try {
    mkdirSync(path, { recursive: true })
  } catch (cause) {
    throw new DataFolderError(
      `the data folder ${path} cannot be made: ${cause instanceof Error ? cause.message : String(cause)}; set STANDALONE_DATA_FOLDER`,
    )
  }
  let lock: DatabaseSync | undefined
  try {
    lock = new DatabaseSync(join(path, 'lock'), { timeout: 0 })
    lock.exec('BEGIN EXCLUSIVE')
    writeFileSync(pidFile, `${process.pid}\n`)
  } catch (cause) {
    lock?.close()
    if (isBusy(cause)) {
      throw new DataFolderError(
        `the data folder ${path} is in use by process ${readPid(pidFile)}; stop that one, or set STANDALONE_DATA_FOLDER`,
      )
    }
    throw new DataFolderError(
      `the data folder ${path} cannot be used: ${cause instanceof Error ? cause.message : String(cause)}; set STANDALONE_DATA_FOLDER`,
    )
  }
  const held = lock
  return {
    path,
    file: (name) => join(path, name),
    release: () => held.close(),
  }
}

const sqliteBusy = 5

function isBusy(cause: unknown): boolean {
  return cause instanceof Error && 'errcode' in cause && cause.errcode === sqliteBusy
}

function readPid(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim()
  } catch {
    return '(unknown)'
  }
}
