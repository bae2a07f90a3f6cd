import type { DeviceServer, DeviceServerOptions } from '../../edge/device-server.ts'
import type { RegistryStores } from '../../registry/stores.ts'
import type { MessageQueue } from '../../router/queue/message-queue.ts'
import type { GrpcClientOptions, GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { GrpcServer, GrpcServerOptions } from '../../service-kit/grpc-server.ts'
import { type Random, seededRandom } from '../../service-kit/random.ts'
import { settledFrom } from '../plane/settled-message.ts'
import type { SettledMessage } from '../story.ts'
import type { SimulatedProcess } from './simulated-process.ts'
import { VirtualTime } from './virtual-time.ts'

/** A line of a process's log. */
export interface WorldLine {
  readonly process: SimulatedProcess
  readonly level: string
  readonly phrase: string
  readonly facts: Readonly<Record<string, unknown>>
}

/** What processes reach the world through. */
export interface Ports {
  connect(options: GrpcClientOptions): GrpcConnection
  serve(options: GrpcServerOptions): GrpcServer
  openQueue(process: SimulatedProcess): MessageQueue
  openStores(process: SimulatedProcess): RegistryStores
  serveDevices(process: SimulatedProcess, options: DeviceServerOptions): DeviceServer
}

/** What all parts of one simulation share: its time, its chance, and what is noted of it. */
export class World {
  readonly time = new VirtualTime()
  /** All chance comes of it, so that the seed decides everything. */
  readonly random: Random
  /** Router's last words. */
  readonly settled: SettledMessage[] = []
  /** Log lines that tell of defects. */
  readonly defects: string[] = []
  /** Messages that one session has brought more than once. */
  readonly writtenTwice: string[] = []
  readonly lines: string[] = []
  readonly #traced: boolean
  #ports: Ports | undefined

  constructor(seed: number, traced: boolean) {
    this.random = seededRandom(seed)
    this.#traced = traced
  }

  get ports(): Ports {
    if (this.#ports === undefined) throw new Error('this world has no ports yet')
    return this.#ports
  }

  set ports(ports: Ports) {
    this.#ports = ports
  }

  /** Wall clock of those whose clock is right, in ms since the epoch. */
  get wallMs(): number {
    return this.time.startMs + this.time.now
  }

  /** Notes what happens. */
  trace(tell: () => string): void {
    if (this.#traced) this.lines.push(`${this.time.now.toFixed(3).padStart(10)} ${tell()}`)
  }

  logged({ process, level, phrase, facts }: WorldLine): void {
    this.trace(() => `${process.name}: ${phrase} ${JSON.stringify(facts, shownFact)}`)
    if (level === 'error') this.defects.push(`${process.name}: ${phrase} ${JSON.stringify(facts, shownFact)}`)
    const settled = settledFrom({ phrase, facts, time: this.wallMs })
    if (settled !== undefined) this.settled.push(settled)
  }

  chance(share: number): boolean {
    return this.random.next() < share
  }

  /** From `min` to below `max`. */
  between(min: number, max: number): number {
    return min + this.random.next() * (max - min)
  }

  /** A whole number from `min` to `max`, both included. */
  count(min: number, max: number): number {
    return Math.floor(this.between(min, max + 1))
  }

  pick<T>(choices: readonly T[]): T {
    const choice = choices[Math.floor(this.random.next() * choices.length)]
    if (choice === undefined) throw new Error('nothing to choose from')
    return choice
  }
}

function shownFact(_: string, fact: unknown): unknown {
  if (fact instanceof Error) return `${fact.name}: ${fact.message}`
  return typeof fact === 'bigint' ? String(fact) : fact
}
