import { readFileSync } from 'node:fs'
import { StartError } from './start-error.ts'

/** A file that the operator has named. */
export interface NamedFile {
  /** The setting or option that names the file. */
  readonly setting: string
  readonly path: string
}

/** A file with its setting, or undefined when the setting is unset. */
export function namedFile(setting: string, path: string | undefined): NamedFile | undefined {
  return path === undefined ? undefined : { setting, path }
}

/** Reads it whole. Throws StartError when it cannot be read. */
export function readNamedFile(file: NamedFile): Buffer {
  try {
    return readFileSync(file.path)
  } catch (cause) {
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : 'it cannot be read'
    throw wrongFile(file, `which cannot be read (${why})`, cause)
  }
}

/** What is wrong with it, as the rest of a sentence that begins with its setting and path. */
export function wrongFile({ setting, path }: NamedFile, what: string, cause?: unknown): StartError {
  return new StartError(`${setting} names ${path}, ${what}`, cause === undefined ? {} : { cause })
}
