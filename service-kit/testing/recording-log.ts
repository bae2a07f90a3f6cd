import type { Log, LogLevel } from '../log.ts'
import type { WrittenFacts } from '../log-facts.ts'
import { writtenFacts } from '../log-facts.ts'

/** One line that was logged. */
export interface LogEntry {
  readonly level: LogLevel
  readonly phrase: string
  readonly facts: WrittenFacts
}

/** A log whose lines a test reads. */
export interface RecordingLog extends Log {
  /** All lines so far, those of children included, oldest first. */
  readonly entries: readonly LogEntry[]
  /** The lines with this phrase. */
  withPhrase(phrase: string): readonly LogEntry[]
}

/** Opens an empty one. Facts are kept as the real log would write them. */
export function recordingLog(): RecordingLog {
  const entries: LogEntry[] = []
  return {
    ...logInto(entries, {}),
    entries,
    withPhrase: (phrase) => entries.filter((entry) => entry.phrase === phrase),
  }
}

function logInto(entries: LogEntry[], parentFacts: WrittenFacts): Log {
  const write = (level: LogLevel) => (phrase: string, facts?: Record<string, unknown>) => {
    entries.push({ level, phrase, facts: { ...parentFacts, ...writtenFacts(facts ?? {}) } })
  }
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (facts) => logInto(entries, { ...parentFacts, ...writtenFacts(facts) }),
  }
}
