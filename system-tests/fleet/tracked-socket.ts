import { WebSocket } from 'ws'
import type { Socket } from '../../device-sdk/index.ts'
import type { SessionSpan } from '../story.ts'

/** What is noted of the connections of one process of a device. */
export interface ConnectionNotes {
  readonly sessions: SessionSpan[]
  /** Which session brought which message last, by message id. */
  readonly broughtBy: Map<string, string>
  /** How the connection closed that closed last. */
  lastClose?: string
}

/** A device's WebSocket, which keeps a log of its own: when its session opened and ended, and what it brought. */
export class TrackedSocket implements Socket {
  /** `host:port` that it was opened to. */
  readonly host: string
  readonly #socket: WebSocket
  readonly #notes: ConnectionNotes
  #session: SessionSpan | undefined

  constructor(url: string, protocols: string[], notes: ConnectionNotes) {
    this.host = new URL(url).host
    this.#notes = notes
    this.#socket = new WebSocket(url, protocols, { perMessageDeflate: false })
    this.#socket.addEventListener('message', ({ data }) => this.#note(String(data)))
    this.#socket.addEventListener('close', ({ code, reason }) => {
      notes.lastClose = `${code} ${reason}`.trim()
      this.#end()
    })
  }

  /** Its session is open. */
  get open(): boolean {
    return this.#session !== undefined && this.#session.endedAt === undefined
  }

  send(text: string): void {
    this.#socket.send(text)
  }

  close(code?: number, reason?: string): void {
    this.#end()
    this.#socket.close(code, reason)
  }

  /** Ends the connection without a word, as a device does that has lost its network. */
  cut(): void {
    this.#end()
    this.#socket.terminate()
  }

  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener(type: 'close', listener: (event: { code: number; reason: string }) => void): void
  addEventListener(type: 'error', listener: (event: unknown) => void): void
  addEventListener(
    type: 'message' | 'close' | 'error',
    // The overloads above pair each type with its listener; here only the forwarding is left.
    listener: (event: { data: unknown } & { code: number; reason: string }) => void,
  ): void {
    this.#socket.addEventListener(type, listener as () => void)
  }

  #note(text: string): void {
    const frame: { type?: string; session_id?: string; id?: string } = JSON.parse(text)
    if (frame.type === 'welcome' && frame.session_id !== undefined) {
      this.#session = { sessionId: frame.session_id, openedAt: Date.now(), endedAt: undefined }
      this.#notes.sessions.push(this.#session)
    } else if (frame.type === 'message' && frame.id !== undefined) {
      // Repeats are not handed over: the first one counts.
      if (!this.#notes.broughtBy.has(frame.id)) this.#notes.broughtBy.set(frame.id, this.#session?.sessionId ?? '')
    }
  }

  #end(): void {
    if (this.#session !== undefined) this.#session.endedAt ??= Date.now()
  }
}
