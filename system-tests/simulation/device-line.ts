import { EventEmitter } from 'node:events'
import type { Socket } from '../../device-sdk/index.ts'
import type { SimulatedProcess } from './simulated-process.ts'
import type { World } from './world.ts'

/** Bytes that a device which does not read may leave unread before its edge is told to wait. */
const unreadBytesMax = 600
/** How long an edge waits for the answer to its close, ms. */
const closeTimeoutMs = 5_000

type DeviceListener = (event: { data: unknown } & { code: number; reason: string }) => void

interface LineEnds {
  readonly world: World
  readonly device: SimulatedProcess
  /** Of the session's frames, as the device gets them. */
  readonly onFrame: (text: string) => void
  /** The device can be reached no more. */
  readonly onLost: () => void
}

/** A WebSocket between a device and an edge: two ends, and a line that may be cut, be silent, or not be read. */
export class DeviceLine {
  readonly #ends: LineEnds
  readonly edgeEnd: EdgeEnd
  readonly deviceEnd: Socket
  readonly #listeners = new Map<string, DeviceListener[]>()
  readonly #unread: string[] = []
  #edge: SimulatedProcess | undefined
  #silent = false
  #stalled = false
  #deviceOver = false
  #edgeOver = false
  #lostTold = false
  readonly #delayMs: number

  constructor(ends: LineEnds) {
    this.#ends = ends
    this.#delayMs = ends.world.between(0.3, 8)
    this.edgeEnd = new EdgeEnd(this)
    this.deviceEnd = {
      send: (text) => this.#toEdge(() => this.edgeEnd.emit('message', Buffer.from(text), false)),
      close: (code = 1000) => {
        this.#lose()
        this.#toEdge(() => this.#edgeGone(code))
        this.#toDevice(() => this.#deviceGone(code, 'closed'), this.#delayMs * 2)
      },
      addEventListener: (type: string, listener: unknown) => {
        this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener as DeviceListener])
      },
    }
    ends.device.onDeath(() => {
      this.#lose()
      this.#toEdge(() => this.#edgeGone(1006))
    })
  }

  get open(): boolean {
    return this.#edge !== undefined && !this.#deviceOver && !this.#edgeOver && !this.#silent
  }

  /** The edge has let it in. */
  connected(edge: SimulatedProcess): void {
    this.#edge = edge
    edge.onDeath(() => {
      this.#lose()
      this.#edgeOver = true
      this.#toDevice(() => this.#deviceGone(1006, ''))
    })
  }

  /** The edge has not. */
  refused(): void {
    this.#lose()
    this.#edgeOver = true
    this.#toDevice(() => this.#deviceGone(1006, 'refused'))
  }

  /** Both ends learn that it is gone. */
  cut(): void {
    this.#ends.world.trace(() => `the line of ${this.#ends.device.name} is cut`)
    this.#lose()
    this.#toEdge(() => this.#edgeGone(1006))
    this.#toDevice(() => this.#deviceGone(1006, ''))
    this.#silent = true
  }

  /** Nothing gets through any more, and nobody is told. */
  silence(): void {
    this.#ends.world.trace(() => `the line of ${this.#ends.device.name} is dead`)
    this.#lose()
    this.#silent = true
  }

  /** The device stops reading, or goes on. */
  stall(stalled: boolean): void {
    this.#stalled = stalled
    if (stalled) return
    const unread = this.#unread.splice(0)
    for (const text of unread) this.#toDevice(() => this.#deviceFrame(text))
    this.edgeEnd.connection.relieve()
  }

  // What the edge's end does.

  sent(text: string): void {
    if (!this.#stalled) return this.#toDevice(() => this.#deviceFrame(text))
    this.#unread.push(text)
    if (this.#unread.reduce((sum, one) => sum + one.length, 0) > unreadBytesMax) this.edgeEnd.connection.writableNeedDrain = true
  }

  pinged(): void {
    // The device's WebSocket answers by itself, where it reads.
    if (!this.#stalled) this.#toDevice(() => this.#toEdge(() => this.edgeEnd.emit('pong')))
  }

  closedByEdge(code: number, reason: string): void {
    const { world } = this.#ends
    // A device that does not read does not see it, and has lost its session all the same.
    this.#lose()
    if (!this.#stalled) {
      this.#toDevice(() => {
        this.#deviceGone(code, reason)
        this.#toEdge(() => this.#edgeGone(code))
      })
    }
    world.time.after(closeTimeoutMs, this.#edge, () => {
      this.#edgeGone(1006)
      this.#toDevice(() => this.#deviceGone(1006, ''))
    })
  }

  terminated(): void {
    this.#toDevice(() => this.#deviceGone(1006, ''))
    this.#edgeGone(1006)
  }

  #deviceFrame(text: string): void {
    if (this.#deviceOver) return
    this.#ends.onFrame(text)
    this.#emit('message', { data: text, code: 0, reason: '' })
  }

  #deviceGone(code: number, reason: string): void {
    if (this.#deviceOver) return
    this.#deviceOver = true
    this.#lose()
    this.#emit('close', { data: undefined, code, reason })
  }

  #edgeGone(code: number): void {
    if (this.#edgeOver || this.#edge === undefined) return
    this.#edgeOver = true
    this.edgeEnd.readyState = 3
    this.edgeEnd.emit('close', code)
  }

  #lose(): void {
    if (this.#lostTold) return
    this.#lostTold = true
    this.#ends.onLost()
  }

  #emit(type: string, event: { data: unknown; code: number; reason: string }): void {
    for (const listener of this.#listeners.get(type) ?? []) listener(event)
  }

  #toEdge(run: () => void): void {
    if (this.#silent) return
    this.#ends.world.time.after(this.#delayMs, this.#edge, run)
  }

  #toDevice(run: () => void, delayMs = this.#delayMs): void {
    if (this.#silent) return
    this.#ends.world.time.after(delayMs, this.#ends.device, run)
  }
}

/** As much of a WebSocket as an edge uses. */
export class EdgeEnd extends EventEmitter {
  readonly connection = new EdgeConnection()
  readyState = 1
  readonly #line: DeviceLine

  constructor(line: DeviceLine) {
    super()
    this.#line = line
  }

  send(frame: Buffer): void {
    if (this.readyState === 1) this.#line.sent(frame.toString('utf8'))
  }
  ping(): void {
    if (this.readyState === 1) this.#line.pinged()
  }
  close(code: number, reason: string): void {
    if (this.readyState !== 1) return
    this.readyState = 2
    this.#line.closedByEdge(code, reason)
  }
  terminate(): void {
    this.#line.terminated()
  }
}

/** As much of a connection as an edge uses. */
class EdgeConnection extends EventEmitter {
  writableNeedDrain = false
  readonly writableCorked = 1

  relieve(): void {
    if (!this.writableNeedDrain) return
    this.writableNeedDrain = false
    this.emit('drain')
  }
}
