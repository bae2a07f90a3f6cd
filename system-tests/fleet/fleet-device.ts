import { setTimeout as delay } from 'node:timers/promises'
import { connectDevice, type Device, type DeviceMessage } from '../../device-sdk/index.ts'
import type { Random } from '../../service-kit/random.ts'
import type { TestPayload } from '../plane/publisher.ts'
import type { DeviceLog, HandledMessage } from '../story.ts'
import { type ConnectionNotes, TrackedSocket } from './tracked-socket.ts'

/** What devices share. */
export interface FleetDeviceOptions {
  /** `host:port` of the edge that the next connection goes to: what a load balancer decides. Undefined: there is none at present. */
  readonly nextEdge: () => string | undefined
  readonly random: Random
  /** The account that it logs in to at first. Default: none. */
  readonly accountId?: string | undefined
}

/** Quick, so that a short test sees many sessions. */
const backoff = { baseMs: 100, capMs: 1_000, stableMs: 5_000 }
/** Longest time that a handler takes, so that answers are under way when connections end. */
const handlerMaxMs = 20

interface DeviceProcess extends Pick<ConnectionNotes, 'sessions'> {
  readonly accountId: string | undefined
  readonly notes: ConnectionNotes
  readonly handled: HandledMessage[]
  readonly device: Device
  readonly sockets: Set<TrackedSocket>
}

/** One device: the SDK as apps use it, and a log of what it saw. Its process may be restarted; the log stays. */
export class FleetDevice {
  readonly deviceId: string
  readonly #options: FleetDeviceOptions
  readonly #processes: DeviceProcess[] = []
  /** What the next process logs in to. */
  #accountId: string | undefined
  #longestWaitMs = 0

  constructor(deviceId: string, options: FleetDeviceOptions) {
    this.deviceId = deviceId
    this.#options = options
    this.#accountId = options.accountId
  }

  get log(): DeviceLog {
    return { deviceId: this.deviceId, processes: this.#processes }
  }

  get connected(): boolean {
    return this.#process?.device.state === 'open'
  }

  /** `host:port` of the edge that it has its session with. */
  get connectedTo(): string | undefined {
    for (const { open, host } of this.#process?.sockets ?? []) if (open) return host
    return undefined
  }

  /** The longest that it has chosen to wait while it had no session. */
  get longestWaitMs(): number {
    return this.#longestWaitMs
  }

  /** How its last connection closed, for messages. */
  get lastClose(): string {
    return this.#process?.notes.lastClose ?? 'none has closed'
  }

  /** Begins a process of the device: it connects, comes back after each end, and remembers which messages it has handled. */
  start(): void {
    const accountId = this.#accountId
    const notes: ConnectionNotes = { sessions: [], broughtBy: new Map() }
    const handled: HandledMessage[] = []
    const sockets = new Set<TrackedSocket>()
    const device = connectDevice({
      url: 'ws://127.0.0.1/v1/connect',
      token: accountId === undefined ? `dev:${this.deviceId}` : `dev:${this.deviceId}/${accountId}`,
      backoff,
      random: this.#options.random,
      openSocket: (url, protocols) => {
        const edge = this.#options.nextEdge()
        if (edge === undefined) throw new Error('no edge takes connections')
        const socket = new TrackedSocket(url.replace('127.0.0.1', edge), protocols, notes)
        sockets.add(socket)
        socket.addEventListener('close', () => sockets.delete(socket))
        return socket
      },
      onMessage: async (message) => {
        handled.push(noted(message, notes, Date.now()))
        await delay(this.#options.random.next() * handlerMaxMs)
      },
    })
    device.on('disconnected', ({ retryInMs }) => {
      this.#longestWaitMs = Math.max(this.#longestWaitMs, retryInMs)
    })
    this.#processes.push({ accountId, notes, sessions: notes.sessions, handled, device, sockets })
  }

  /** The process that starts next belongs to this account. */
  logInTo(accountId: string | undefined): void {
    this.#accountId = accountId
  }

  /** Closes the open connection as a client does; the SDK comes back by itself, to another edge perhaps. */
  closeConnection(): void {
    for (const socket of this.#process?.sockets ?? []) if (socket.open) socket.close(1000, 'closed by the test')
  }

  /** Loses the open connection without a word. */
  cutConnection(): void {
    for (const socket of this.#process?.sockets ?? []) if (socket.open) socket.cut()
  }

  /** Ends the device's process. `start` begins the next one, which knows nothing of this one. */
  async stop(): Promise<void> {
    await this.#process?.device.close({ graceMs: 0 })
  }

  get #process(): DeviceProcess | undefined {
    return this.#processes.at(-1)
  }
}

/** What a device's log keeps of a message that came to its handler. */
export function noted(message: DeviceMessage, { broughtBy }: ConnectionNotes, handledAt: number): HandledMessage {
  // What the publisher of these tests puts in; anything else shows up as meant for nobody.
  const { key, to } = message.data as Partial<TestPayload>
  return {
    messageId: message.id,
    key: key ?? '',
    meantFor: to ?? '',
    sessionId: broughtBy.get(message.id) ?? '',
    handledAt,
    redelivered: message.redelivered,
  }
}
