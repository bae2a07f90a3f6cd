import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { type GuardedProcess, lastLines, type ProcessEnd, startGuarded } from '../servers/guarded-process.ts'
import { type LogLine, ProcessLog } from './process-log.ts'

/** How one service is run. */
export interface ServiceOrder {
  /** Unique within the plane; names its log files. */
  readonly name: string
  /** Absolute path of the file that Node runs. */
  readonly entry: string
  /** The phrase that it logs when it serves. */
  readonly readyPhrase: string
  /** Its settings. Nothing else of this process's environment reaches it but PATH. */
  readonly env: Readonly<Record<string, string>>
  /** For its log files. */
  readonly folder: string
}

const startTimeoutMs = 60_000
const pollMs = 25

/** One service in a process of its own, over its starts. It cannot outlive this process. */
export class ServiceProcess {
  readonly name: string
  readonly #order: ServiceOrder
  readonly #logs: ProcessLog[] = []
  #process: GuardedProcess | undefined

  constructor(order: ServiceOrder) {
    this.name = order.name
    this.#order = order
  }

  /** A fact that the present start has told with its ready line, for instance `address`. */
  fact(name: string): string {
    return this.told(this.#order.readyPhrase, name)
  }

  /** A fact that the present start has told with the line of this phrase. */
  told(phrase: string, name: string): string {
    const value = this.#logs.at(-1)?.lines.find((line) => line.phrase === phrase)?.facts[name]
    if (typeof value !== 'string') throw new Error(`${this.name} has told no ${name} as "${phrase}"`)
    return value
  }

  /** What it says at `/metrics` now. */
  async metrics(): Promise<string> {
    return (await fetch(`http://${this.told('metrics served', 'address')}/metrics`)).text()
  }

  /** The value of one metric now, by its name with its labels as they stand there; undefined when it is not there. */
  async metric(name: string): Promise<number | undefined> {
    const line = (await this.metrics()).split('\n').find((each) => each.startsWith(`${name} `))
    return line === undefined ? undefined : Number(line.slice(name.length + 1))
  }

  get running(): boolean {
    return this.#process?.running ?? false
  }

  /** All lines of all starts, oldest first. */
  lines(): LogLine[] {
    for (const log of this.#logs) log.read()
    return this.#logs.flatMap(({ lines }) => lines)
  }

  /** What all starts have written beside the structured log. */
  words(): string[] {
    for (const log of this.#logs) log.read()
    return this.#logs.flatMap(({ words }) => words)
  }

  /** One for each start. */
  get logFiles(): string[] {
    return this.#logs.map(({ file }) => file)
  }

  /** Starts it, and waits until it serves. Rejects with its last words when it ends instead. */
  async start(): Promise<void> {
    if (this.running) throw new Error(`${this.name} runs already`)
    const { name, entry, env, folder, readyPhrase } = this.#order
    const log = new ProcessLog(join(folder, `${name}-${this.#logs.length + 1}.log`))
    this.#logs.push(log)
    const started = await startGuarded({
      command: process.execPath,
      // Each kafkajs client sets one timer that Node warns about.
      args: ['--disable-warning=TimeoutNegativeWarning', entry],
      folder,
      env: { PATH: process.env.PATH, ...env },
      logFile: log.file,
    })
    this.#process = started
    const giveUpAt = Date.now() + startTimeoutMs
    for (;;) {
      log.read()
      if (log.lines.some(({ phrase }) => phrase === readyPhrase)) return
      const late = Date.now() > giveUpAt
      if (!started.running || late) {
        await started.kill()
        throw new Error(`${name} ${late ? 'is not ready in time' : 'ended while starting'}:\n${lastLines(log.file, 20)}`)
      }
      await delay(pollMs)
    }
  }

  /** SIGKILL: nothing is said goodbye to. Resolves when the process has ended. */
  kill(): Promise<ProcessEnd> {
    return this.#running().kill()
  }

  /** SIGTERM. Resolves when the process has ended, by itself or by force after `graceMs`. */
  stop(graceMs = 60_000): Promise<ProcessEnd> {
    return this.#running().stop(graceMs)
  }

  /** Has it read its files again: SIGHUP. */
  reload(): void {
    this.#running().signal('SIGHUP')
  }

  /** Freezes it: its sockets stay open, and nothing is read from them. */
  pause(): void {
    this.#running().signal('SIGSTOP')
  }

  resume(): void {
    this.#running().signal('SIGCONT')
  }

  /** Starts it anew with the same settings, after killing it if it runs. */
  async restart(): Promise<void> {
    if (this.running) await this.kill()
    await this.start()
  }

  #running(): GuardedProcess {
    if (this.#process === undefined) throw new Error(`${this.name} was never started`)
    return this.#process
  }
}
