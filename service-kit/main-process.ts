import type { Clock } from './clock.ts'
import { systemClock } from './clock.ts'
import type { Closers } from './closers.ts'
import { createClosers } from './closers.ts'
import { envPrefix } from './config.ts'
import type { Log, LogLevel } from './log.ts'
import { createLog, logLevels } from './log.ts'
import type { Metrics } from './metrics.ts'
import { createMetrics } from './metrics.ts'
import type { Random } from './random.ts'
import { systemRandom } from './random.ts'
import type { Reloads } from './reloads.ts'
import { reloadsBySignal } from './reloads.ts'
import { withSettingsFile } from './settings-file.ts'
import { StartError } from './start-error.ts'

/** What a service is started with. */
export interface ServiceContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly log: Log
  /** Closed, last opened first, when the process is told to stop. */
  readonly closers: Closers
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  /** SIGHUP, for what can be changed while the process runs. */
  readonly reloads: Reloads
  /** Sets how long closing may take when told to stop. 30 000 until set; drains may need more. */
  setGraceMs(graceMs: number): void
}

/** How a process ends. */
export const exitCodes = {
  /** Stopped when told to, everything closed in time. */
  stopped: 0,
  /** Could not start, or did not close in time. */
  failed: 1,
  /** A setting is wrong. */
  config: 2,
  /** A defect: an error that nobody caught. */
  defect: 70,
} as const

const defaultGraceMs = 30_000
/** After a defect the state is not to be trusted: only long enough to say goodbye. */
const defectGraceMs = 5_000

/**
 * Makes this process the service. SIGTERM and SIGINT close everything and exit; a second one cuts what is still open. An
 * error that nobody caught is logged, everything closed with a short grace, exit 70. What the operator can mend (config,
 * taken ports: StartError) is told on standard error as it is. The log's level is `<NAME>_LOG_LEVEL`, by default `info`.
 */
export async function runService(
  name: string,
  start: (context: ServiceContext) => Promise<void>,
  options: { readonly defaultLogLevel?: LogLevel } = {},
): Promise<void> {
  const env = process.env
  const prefix = envPrefix(name)
  // What is wrong with the file is the config's to complain about.
  const level = levelOf(withSettingsFile(env, prefix).env[`${prefix}LOG_LEVEL`], options.defaultLogLevel ?? 'info')
  const log = createLog({ service: name, level })
  const closers = createClosers(log, systemClock)
  const metrics = createMetrics({ processMetrics: true })
  let graceMs = defaultGraceMs
  let stopping = false
  let exitCode: number = exitCodes.stopped

  const stop = async (code: number, stopGraceMs: number) => {
    stopping = true
    exitCode = Math.max(exitCode, code) // a defect while stopping still shows
    const { late } = await closers.close({ graceMs: stopGraceMs })
    process.exit(exitCode === exitCodes.stopped && late.length > 0 ? exitCodes.failed : exitCode)
  }
  const onSignal = (signal: NodeJS.Signals) => {
    if (!stopping) log.info('stopping', { signal, grace_ms: graceMs })
    else log.warn('stopping at once', { signal })
    void stop(exitCodes.stopped, stopping ? 0 : graceMs)
  }
  const onDefect = (cause: unknown) => {
    log.error('stopping after an error that nobody caught', { cause })
    void stop(exitCodes.defect, defectGraceMs)
  }
  // They stay for as long as the process lives.
  process.on('SIGTERM', onSignal)
  process.on('SIGINT', onSignal)
  process.on('uncaughtException', onDefect)
  process.on('unhandledRejection', onDefect)

  try {
    const setGraceMs = (ms: number) => {
      graceMs = ms
    }
    await start({ env, log, closers, clock: systemClock, random: systemRandom, metrics, reloads: reloadsBySignal(), setGraceMs })
  } catch (error) {
    if (stopping) return // closing makes half-started parts fail; the exit is under way
    if (error instanceof StartError) {
      const plain = error.message.startsWith(`${name} cannot start`) ? error.message : `${name} cannot start: ${error.message}`
      process.stderr.write(`${plain}\n`)
      await stop(error.exitCode, defectGraceMs)
    } else {
      log.error('cannot start', { cause: error })
      await stop(exitCodes.failed, defectGraceMs)
    }
  }
}

function levelOf(typed: string | undefined, byDefault: LogLevel): LogLevel {
  // A wrong word is the config's to complain about.
  return logLevels.find((level) => level === typed) ?? byDefault
}
