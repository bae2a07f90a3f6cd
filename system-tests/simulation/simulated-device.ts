import { connectDevice, type Device } from '../../device-sdk/index.ts'
import { noted } from '../fleet/fleet-device.ts'
import type { ConnectionNotes } from '../fleet/tracked-socket.ts'
import type { DeviceLog, HandledMessage } from '../story.ts'
import type { DeviceLine } from './device-line.ts'
import type { SimulatedPlane } from './simulated-plane.ts'
import { SimulatedProcess } from './simulated-process.ts'

interface DeviceRun {
  readonly notes: ConnectionNotes
  readonly sessions: ConnectionNotes['sessions']
  readonly handled: HandledMessage[]
  readonly process: SimulatedProcess
  readonly device: Device
}

/** A message that was addressed to an account, as a device got it. */
export interface AccountHandling {
  /** The device's process. */
  readonly process: string
  readonly deviceId: string
  readonly messageId: string
  /** Whose the device was then. */
  readonly deviceAccount: string
  /** Whom the message was addressed to. */
  readonly target: string
}

/** Quick, so that a short schedule sees many sessions. */
const backoff = { baseMs: 100, capMs: 1_000, stableMs: 5_000 }
/** How long a handler takes at most, for one device or another. */
const handlerMaxMs = [10, 30, 30, 250] as const

/** One device: the SDK as apps use it, on lines of the simulation. */
export class SimulatedDevice {
  readonly deviceId: string
  account: string
  /** Its handler returns nothing while this is so. */
  silent = false
  readonly accountHandlings: AccountHandling[] = []
  readonly #plane: SimulatedPlane
  readonly #runs: DeviceRun[] = []
  readonly #lines = new Set<DeviceLine>()
  readonly #handlerMaxMs: number
  #waiting: (() => void)[] = []

  constructor(plane: SimulatedPlane, deviceId: string, account: string) {
    this.#plane = plane
    this.deviceId = deviceId
    this.account = account
    this.#handlerMaxMs = plane.world.pick(handlerMaxMs)
  }

  get log(): DeviceLog {
    return { deviceId: this.deviceId, processes: this.#runs }
  }

  get connected(): boolean {
    return this.#run?.device.state === 'open'
  }

  /** Connections that are open as far as anybody knows. */
  get openLines(): DeviceLine[] {
    return [...this.#lines].filter(({ open }) => open)
  }

  start(): void {
    const { world } = this.#plane
    const process = new SimulatedProcess(world, `${this.deviceId}#${this.#runs.length + 1}`)
    const notes: ConnectionNotes = { sessions: [], broughtBy: new Map() }
    const handled: HandledMessage[] = []
    const { account } = this
    const device = connectDevice({
      url: 'ws://plane/v1/connect',
      token: 'asked for by the edge in another way',
      backoff,
      clock: process.clock,
      random: process.random,
      openSocket: () => {
        const line = this.#plane.dial(process, account === '' ? `dev:${this.deviceId}` : `dev:${this.deviceId}/${account}`, notes)
        this.#lines.add(line)
        return line.deviceEnd
      },
      onMessage: async (message) => {
        if (message.target.startsWith('account/')) {
          this.accountHandlings.push({
            process: process.name,
            deviceId: this.deviceId,
            messageId: message.id,
            deviceAccount: account,
            target: message.target,
          })
        } else handled.push(noted(message, notes, world.wallMs))
        await process.clock.sleep(process.random.next() * this.#handlerMaxMs)
        if (this.silent) await new Promise<void>((resolve) => this.#waiting.push(resolve))
        return { done: message.id }
      },
    })
    this.#runs.push({ notes, sessions: notes.sessions, handled, process, device })
  }

  /** Its process ends without a word; the next one knows nothing of it. */
  restart(): void {
    this.#run?.process.kill()
    this.start()
  }

  /** Logs in to another account: a new process of the app. */
  changeAccount(account: string): void {
    this.account = account
    this.restart()
  }

  /** Its handlers return from now on. */
  speak(): void {
    this.silent = false
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  kill(): void {
    this.#run?.process.kill()
  }

  get #run(): DeviceRun | undefined {
    return this.#runs.at(-1)
  }
}
