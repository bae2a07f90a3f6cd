import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { type GuardedProcess, lastLines, startGuarded } from './guarded-process.ts'

/** One server process that tests may hurt. All promises settle when the thing has happened. */
export interface ServerNode {
  /** For messages, such as `kafka-1`. */
  readonly name: string
  /** `host:port` for clients; the same after a restart. */
  readonly address: string
  /** What the server wrote, over all its starts. */
  readonly logFile: string
  /** Of the running process; undefined when none runs. */
  readonly pid: number | undefined
  /** SIGKILL. */
  kill(): Promise<void>
  /** SIGTERM, and SIGKILL when it takes more than 10 s. */
  stop(): Promise<void>
  /** SIGSTOP: the process keeps its connections and answers nothing. */
  pause(): void
  /** SIGCONT. */
  resume(): void
  /** Kills it if it runs, then starts it on the same ports and data, and waits until it answers. */
  restart(): Promise<void>
}

/** What the kinds of servers say about a node. */
export interface NodeOrder {
  readonly name: string
  readonly address: string
  /** Exists, and holds the configuration. Working folder of the server. */
  readonly folder: string
  readonly command: string
  readonly args: readonly string[]
  readonly removeWhenOrphaned?: string
  /** Returns when the server answers a request of its protocol; throws when it does not, and is asked again. */
  readonly probe: () => Promise<void>
}

const stopGraceMs = 10_000
/** A cold, busy machine of two cores takes 30 s for three nodes of each kind. */
const readyTimeoutMs = 120_000
const probePauseMs = 100
const shownLineCountMax = 25

/** Says that a server ended before it answered. */
export class ServerStartError extends Error {
  /** Whether it was because another process has one of its ports: worth a try on other ports. */
  readonly portTaken: boolean

  constructor(message: string, portTaken: boolean) {
    super(message)
    this.name = 'ServerStartError'
    this.portTaken = portTaken
  }
}

export interface StartedNode extends ServerNode {
  /** Waits until it answers. Throws `ServerStartError` with the end of its log when it ends before. */
  ready(): Promise<void>
}

/** Starts a server process and returns at once; `ready()` waits for it. */
export async function launchNode(order: NodeOrder): Promise<StartedNode> {
  const logFile = join(order.folder, 'server.log')
  const launch = () => startGuarded({ ...order, logFile })
  let current: GuardedProcess = await launch()

  const ready = async () => {
    const started = performance.now()
    const launched = current
    let lastProblem: unknown
    while (performance.now() - started < readyTimeoutMs) {
      if (!launched.running) throw await startError(launched)
      try {
        await order.probe()
        // Something else may answer on the port while our server is about to give up.
        if (launched.running) return
      } catch (error) {
        lastProblem = error
      }
      await Promise.race([delay(probePauseMs), launched.ended])
    }
    throw new ServerStartError(
      `${order.name} did not answer within ${readyTimeoutMs} ms (${String(lastProblem)}); ${endOfLog()}`,
      false,
    )
  }
  const startError = async (ended: GuardedProcess) => {
    const { code, signal } = await ended.ended
    const text = endOfLog()
    return new ServerStartError(
      `${order.name} ended while starting (${signal ?? `exit code ${code}`}); ${text}`,
      isPortTaken(text),
    )
  }
  const endOfLog = () => `the end of ${logFile}:\n${lastLines(logFile, shownLineCountMax)}`

  return {
    name: order.name,
    address: order.address,
    logFile,
    get pid() {
      return current.running ? current.pid : undefined
    },
    ready,
    async kill() {
      await current.kill()
    },
    async stop() {
      await current.stop(stopGraceMs)
    },
    pause: () => current.signal('SIGSTOP'),
    resume: () => current.signal('SIGCONT'),
    async restart() {
      await current.kill()
      current = await launch()
      await ready()
    },
  }
}

/** Runs `start` again, a bounded number of times, when a port that was free has been taken in between. */
export async function withPortRetry<T>(start: () => Promise<T>): Promise<T> {
  const attemptCountMax = 4
  for (let attempt = 1; ; attempt++) {
    try {
      return await start()
    } catch (error) {
      if (!(error instanceof ServerStartError && error.portTaken) || attempt === attemptCountMax) throw error
    }
  }
}

function isPortTaken(log: string): boolean {
  return /Address already in use|BindException|is in use by another process/.test(log)
}
