import { readFile } from 'node:fs/promises'
import type { Clock } from './clock.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { type NamedFile, readNamedFile } from './named-file.ts'
import type { Reloads } from './reloads.ts'

/** What `watchFiles` takes. */
export interface WatchedFilesOptions<T> {
  /** What the files hold, for log and metric: `tls certificate`. */
  readonly name: string
  /** The files, each with the setting that names it. */
  readonly files: readonly NamedFile[]
  /** Makes of the contents, in the order of the files, what they mean. Throws StartError with what is wrong: for the operator to read. */
  readonly parse: (contents: readonly Buffer[]) => T
  /** Gets each new meaning after the first. */
  readonly onChange?: (value: T) => void
  /** How often the files are looked at, in ms. Default 10 000. */
  readonly periodMs?: number
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  /** Looks at once when told to. */
  readonly reloads?: Reloads | undefined
}

/** Files whose meaning is kept up to date. */
export interface WatchedFiles<T> {
  /** What they meant when they were last right. */
  readonly value: T
  /** Looks at the files now. Never rejects. */
  look(): Promise<void>
  close(): void
}

/** Looked at often enough to be in force within moments, and too rarely to cost anything. */
const periodDefaultMs = 10_000

/**
 * Reads files at once, and again whenever they have changed. Contents that do not hold are told once and counted, and what was right before stays
 * in force; so files that are replaced one after the other are taken when the last of them is in place. They are read rather than watched, since
 * mounted secrets change by a moved link, of which watching learns nothing. Throws StartError when the files cannot be used at the start.
 */
export function watchFiles<T>(options: WatchedFilesOptions<T>): WatchedFiles<T> {
  const { name, files, parse, onChange = () => {}, periodMs = periodDefaultMs, clock, log, metrics, reloads } = options
  const counted = metrics.counter('push_file_reloads_total', 'Files that changed while running, by whether they were taken', [
    'file',
    'result',
  ])
  let seen = files.map((file) => readNamedFile(file))
  let value = parse(seen)
  let told: string | undefined
  let closed = false
  let looking: Promise<void> | undefined
  let again = false

  const refuse = (cause: unknown) => {
    const problem = cause instanceof Error ? cause.message : String(cause)
    if (problem === told) return
    told = problem
    counted.inc({ file: name, result: 'refused' })
    log.error('changed files are not used; what was read before stays in force', { file: name, problem })
  }

  const lookOnce = async () => {
    const contents = await Promise.all(files.map(({ path }) => readFile(path)))
    if (closed || (contents.every((content, index) => seen[index]?.equals(content)) && told === undefined)) return
    const next = parse(contents)
    const changed = contents.some((content, index) => !seen[index]?.equals(content))
    seen = contents
    told = undefined
    // Put back as it was: in force all the time.
    if (!changed) return
    value = next
    counted.inc({ file: name, result: 'taken' })
    log.info('changed files are in force', { file: name })
    onChange(value)
  }

  const look = (): Promise<void> => {
    again = true
    looking ??= (async () => {
      while (again) {
        again = false
        await lookOnce().catch(refuse)
      }
    })().finally(() => {
      looking = undefined
    })
    return looking
  }
  const timer = clock.every(periodMs, () => void look())
  const stopListening = reloads?.onReload(() => void look())

  return {
    get value() {
      return value
    },
    look,
    close() {
      closed = true
      timer.cancel()
      stopListening?.()
    },
  }
}
