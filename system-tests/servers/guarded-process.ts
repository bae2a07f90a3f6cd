import { fork } from 'node:child_process'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

/** What to run, told to the guardian once. */
export interface GuardianOrder {
  readonly command: string
  readonly args: readonly string[]
  /** Working folder of the process. It must exist. */
  readonly folder: string
  readonly env: NodeJS.ProcessEnv
  /** Gets stdout and stderr, appended. */
  readonly logFile: string
  /** Removed, with all in it, after the process was killed because its parent had died. */
  readonly removeWhenOrphaned?: string
}

export type GuardianReport =
  | { readonly kind: 'started'; readonly pid: number }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'ended'; readonly code: number | null; readonly signal: NodeJS.Signals | null }

export interface ProcessEnd {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** A running process that cannot outlive this one. */
export interface GuardedProcess {
  readonly pid: number
  /** Settles when the process has ended, whoever ended it. Never rejects. */
  readonly ended: Promise<ProcessEnd>
  /** False once the end is known. */
  readonly running: boolean
  /** Sends a signal; does nothing after the end. */
  signal(signal: NodeJS.Signals): void
  /** SIGKILL, and waits for the end. */
  kill(): Promise<ProcessEnd>
  /** SIGTERM, then SIGKILL after `graceMs`; waits for the end. */
  stop(graceMs: number): Promise<ProcessEnd>
}

const guardianFile = fileURLToPath(new URL('./guardian.ts', import.meta.url))

/**
 * Starts a process that dies with this one, also when this one is killed by SIGKILL. For servers and for any other
 * long-running child of a test. Rejects when the command cannot be started; a process that ends at once is no error here.
 */
export async function startGuarded(
  order: Omit<GuardianOrder, 'env'> & { readonly env?: NodeJS.ProcessEnv },
): Promise<GuardedProcess> {
  // A session of its own: Ctrl-C in a terminal reaches the parent alone, which then decides the order of stopping.
  const guardian = fork(guardianFile, [], { detached: true, stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv: [] })
  const started = Promise.withResolvers<number>()
  const ended = Promise.withResolvers<ProcessEnd>()
  let pid: number | undefined
  let running = true

  const end = (how: ProcessEnd) => {
    running = false
    ended.resolve(how)
  }
  guardian.on('message', (report: GuardianReport) => {
    if (report.kind === 'started') {
      pid = report.pid
      started.resolve(report.pid)
    } else if (report.kind === 'failed') {
      started.reject(new Error(`${order.command} cannot be started: ${report.message}`))
    } else {
      end({ code: report.code, signal: report.signal })
    }
  })
  guardian.once('error', (error) => started.reject(new Error('the guardian of a server process failed', { cause: error })))
  guardian.once('exit', (code, signal) => {
    started.reject(new Error(`the guardian of ${order.command} ended (${signal ?? code}) before it had started it`))
    if (!running) return
    // Someone killed the guardian itself: its server has nobody else to end it.
    if (pid !== undefined) signalPid(pid, 'SIGKILL')
    end({ code: null, signal: 'SIGKILL' })
  })
  guardian.send({ ...order, env: order.env ?? process.env } satisfies GuardianOrder)

  const serverPid = await started.promise
  const signal = (name: NodeJS.Signals) => {
    if (running) signalPid(serverPid, name)
  }
  return {
    pid: serverPid,
    ended: ended.promise,
    get running() {
      return running
    },
    signal,
    kill() {
      signal('SIGKILL')
      return ended.promise
    },
    async stop(graceMs) {
      signal('SIGTERM')
      // A paused process would sleep through its SIGTERM.
      signal('SIGCONT')
      const grace = new AbortController()
      const late = delay(graceMs, undefined, { signal: grace.signal }).then(
        () => signal('SIGKILL'),
        () => undefined,
      )
      const how = await ended.promise
      grace.abort()
      await late
      return how
    },
  }
}

/** The last `lineCountMax` lines of a log file, from its last 16 KiB; empty when there is no such file. */
export function lastLines(file: string, lineCountMax: number): string {
  const tailLimitBytes = 16 * 1024
  let descriptor: number
  try {
    descriptor = openSync(file, 'r')
  } catch {
    return ''
  }
  try {
    const { size } = fstatSync(descriptor)
    const tail = Buffer.alloc(Math.min(size, tailLimitBytes))
    const length = readSync(descriptor, tail, 0, tail.length, size - tail.length)
    return tail.toString('utf8', 0, length).trimEnd().split('\n').slice(-lineCountMax).join('\n')
  } finally {
    closeSync(descriptor)
  }
}

function signalPid(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    // It ended a moment ago and the report is on its way.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}
