import type { GoawayFrame, MessageFrame, WelcomeFrame } from '../../gen/push/v1/device.ts'
import type { ClientFrame } from '../frames.ts'
import type { Socket } from '../socket.ts'
import { settled } from './steered-clock.ts'

/** 2026-01-01 in microseconds: what the scripted edge's clock says at `welcome`. */
export const SERVER_TIME = 1_767_225_600_000_000

/** The edge's end of one socket; a test says what it does. */
export class ScriptedSocket implements Socket {
  readonly url: string
  readonly protocols: string[]
  /** Frames that the device has sent. */
  readonly sent: ClientFrame[] = []
  /** The device has closed its end. */
  closedByDevice = false
  /** When true, the edge does not answer a close. */
  silentAtClose = false
  /** When set, sending throws. */
  broken = false
  readonly #listeners = new Map<string, ((event: never) => void)[]>()
  #closed = false

  constructor(url: string, protocols: string[]) {
    this.url = url
    this.protocols = protocols
  }

  send(text: string): void {
    if (this.broken) throw new Error('socket is broken')
    this.sent.push(JSON.parse(text))
  }

  close(): void {
    this.closedByDevice = true
    if (!this.silentAtClose) queueMicrotask(() => this.#emitClose(1000, ''))
  }

  addEventListener(type: string, listener: (event: never) => void): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener])
  }

  /** The edge sends a frame. */
  async say(frame: object): Promise<void> {
    await this.sayText(JSON.stringify(frame))
  }

  async sayText(data: unknown): Promise<void> {
    this.#emit('message', { data })
    await settled()
  }

  async welcome(fields: Partial<WelcomeFrame> = {}): Promise<void> {
    await this.say({
      type: 'welcome',
      session_id: 's1',
      device_id: 'tv',
      server_time: SERVER_TIME,
      ping_interval_ms: 1_000_000,
      limits: { frame_bytes: 65_536, ack_ids: 100, unanswered_messages: 64 },
      ...fields,
    })
  }

  async message(id: string, fields: Partial<MessageFrame> = {}): Promise<void> {
    await this.say(messageFrame(id, fields))
  }

  async goaway(reconnectAfterMs: number, fields: Partial<GoawayFrame> = {}): Promise<void> {
    await this.say({ type: 'goaway', reason: 'lifetime', reconnect_after_ms: reconnectAfterMs, ...fields })
  }

  /** The edge closes, or the network breaks (1006). */
  async end(code: number, reason = ''): Promise<void> {
    this.#emitClose(code, reason)
    await settled()
  }

  #emitClose(code: number, reason: string): void {
    if (this.#closed) return
    this.#closed = true
    this.#emit('close', { code, reason })
  }

  #emit(type: string, event: unknown): void {
    // Each listener was registered for this type of event.
    for (const listener of this.#listeners.get(type) ?? []) listener(event as never)
  }
}

export function messageFrame(id: string, fields: Partial<MessageFrame> = {}): MessageFrame & { type: 'message' } {
  return {
    type: 'message',
    id,
    class: 'USER',
    data: { n: 1 },
    priority: 'NORMAL',
    accept_time: SERVER_TIME,
    expire_time: SERVER_TIME + 3_600_000_000,
    confirm: 'ACKNOWLEDGED',
    target: 'device/tv',
    ...fields,
  }
}

/** Collects the sockets that a device opens. */
export class ScriptedEdge {
  readonly sockets: ScriptedSocket[] = []

  readonly openSocket = (url: string, protocols: string[]): ScriptedSocket => {
    const socket = new ScriptedSocket(url, protocols)
    this.sockets.push(socket)
    return socket
  }

  /** The socket opened last; waits for one that is about to be opened. */
  async newest(): Promise<ScriptedSocket> {
    await settled()
    const socket = this.sockets.at(-1)
    if (socket === undefined) throw new Error('the device has opened no socket')
    return socket
  }
}
