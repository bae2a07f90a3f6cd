import type { DestinationStream } from 'pino'
import { pino } from 'pino'
import { prettyFactory } from 'pino-pretty'
import { writtenFacts } from './log-facts.ts'

/** How much is written: a level and all above it. */
export const logLevels = ['debug', 'info', 'warn', 'error'] as const
export type LogLevel = (typeof logLevels)[number]

/**
 * Where a service tells what happens. The phrase is fixed text, so that lines can be counted; what varies are the facts,
 * with snake_case names. An error goes in as the fact `cause`. Facts named like secrets (`token`, `password`, `payload`, …)
 * are not written, nor are bytes.
 */
export interface Log {
  debug(phrase: string, facts?: Record<string, unknown>): void
  info(phrase: string, facts?: Record<string, unknown>): void
  warn(phrase: string, facts?: Record<string, unknown>): void
  error(phrase: string, facts?: Record<string, unknown>): void
  /** A log that puts these facts on each of its lines. */
  child(facts: Record<string, unknown>): Log
}

/** What a log is opened with. */
export interface LogOptions {
  /** The service's name, on every line. */
  readonly service: string
  /** Default `info`. */
  readonly level?: LogLevel
  /** One readable line instead of JSON. By default so when standard output is a terminal. */
  readonly pretty?: boolean
  /** Where lines go instead of standard output. For tests. */
  readonly destination?: DestinationStream
}

/** Opens the log of a process. Lines go to standard output, each written before the call returns. */
export function createLog(options: LogOptions): Log {
  const { service, level = 'info', destination } = options
  const pretty = options.pretty ?? (destination === undefined && process.stdout.isTTY === true)
  const settings = {
    level,
    base: { service, pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  }
  const lines = destination ?? pino.destination({ dest: 1, sync: true })
  if (!pretty) return logOn(pino(settings, lines))
  // Not as a worker or a stream, which would still hold the last lines when a process exits: those matter most.
  const readable = prettyFactory({
    ignore: 'pid,service',
    singleLine: true,
    errorLikeObjectKeys: ['cause'],
    colorize: destination === undefined && process.stdout.isTTY === true && !process.env.NO_COLOR,
  })
  return logOn(pino(settings, { write: (line) => lines.write(readable(line)) }))
}

/** Says nothing. */
export const silentLog: Log = {
  debug: () => {},
  info: () => {},
  warn: () => {},
  error: () => {},
  child: () => silentLog,
}

function logOn(target: pino.Logger): Log {
  const write = (level: LogLevel) => (phrase: string, facts?: Record<string, unknown>) => {
    if (!target.isLevelEnabled(level)) return
    if (facts === undefined) target[level](phrase)
    else target[level](writtenFacts(facts), phrase)
  }
  return {
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    child: (facts) => logOn(target.child(writtenFacts(facts))),
  }
}
