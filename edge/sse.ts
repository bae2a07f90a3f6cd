import type { ServerResponse } from 'node:http'
import { CloseCode } from '../gen/push/v1/device.ts'
import type { Clock, Timer } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import { type CloseKind, closeCodeName, closeReason } from './close-codes.ts'
import type { DeviceSession } from './device-session.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import type { Carrier, Transport } from './session-host.ts'
import { eventText, sseCodec } from './sse-codec.ts'

/** What all event streams of an edge share. */
export interface StreamShared {
  readonly metrics: EdgeMetrics
  readonly log: Log
  readonly clock: Clock
  readonly random: Random
}

/** How long the last event may take to leave; then the stream is cut. */
export const streamCloseTimeoutMs = 5_000

const pingEvent = Buffer.from(eventText({ type: 'ping' }))
const secondMs = 1_000

/**
 * Answers the request with an event stream that carries one session. There is no pong: the stream is alive as long as what is written leaves, and a
 * ping that has not left within the pong's deadline ends it with 4002.
 */
export function eventStreamCarrier(response: ServerResponse, headers: Record<string, string>, shared: StreamShared): Carrier {
  beginStream(response, headers, retryAfterBreakMs(shared.random))
  return new EventStream(response, shared)
}

/** Begins an event stream; `retryMs` holds until another is told. */
export function beginStream(response: ServerResponse, headers: Record<string, string>, retryMs: number): void {
  response.writeHead(200, {
    ...headers,
    'content-type': 'text/event-stream; charset=utf-8',
    // Proxies that pack or collect what they pass on would keep messages back.
    'cache-control': 'no-store, no-transform',
    'x-accel-buffering': 'no',
    // The next stream may be for another edge: it begins with a connection of its own.
    connection: 'close',
  })
  response.write(`retry: ${Math.round(retryMs)}\n\n`)
}

/** The last event of a stream. After a code that is final its id is what an EventSource names when it comes again all the same. */
function closeEvent(code: number, reason: string, retryMs: number): string {
  const id = isFinal(code) ? `id: ${finalIdPrefix}${code}\n` : ''
  return `${id}${eventText({ type: 'close', code, reason }, retryMs)}`
}

/**
 * Whether a client that names this event as its last has been told to stay away: an EventSource comes again whatever it was told, and only a status
 * stops it. What was said of a credential is left out: the next request may show another one.
 */
export function wasToldToStayAway(lastEventId: string | undefined): boolean {
  return lastEventId?.startsWith(finalIdPrefix) === true && isFinal(Number(lastEventId.slice(finalIdPrefix.length)))
}

const finalIdPrefix = 'close-'

function isFinal(code: number): boolean {
  return code >= 4500 && code <= 4999 && code !== CloseCode.AUTHENTICATION_FAILED
}

class EventStream implements Transport, Carrier {
  readonly codec = sseCodec
  readonly #response: ServerResponse
  readonly #shared: StreamShared
  #session: DeviceSession | undefined
  #ending: Timer | undefined
  #closedByEdge = false

  constructor(response: ServerResponse, shared: StreamShared) {
    this.#response = response
    this.#shared = shared
  }

  get transport(): Transport {
    return this
  }

  bind(session: DeviceSession): void {
    this.#session = session
    this.#response.on('drain', () => {
      // What was written has left: a device that reads slowly is alive.
      session.heard()
      session.writable()
    })
    // What is wrong with a socket that breaks is of no interest; 'close' follows.
    this.#response.on('error', () => {})
    this.#response.on('close', this.#closed)
  }

  get writable(): boolean {
    return !this.#response.writableNeedDrain && !this.#response.writableEnded && !this.#response.destroyed
  }

  write(frame: Buffer): void {
    this.#response.write(frame)
  }

  ping(): void {
    this.#response.write(pingEvent, this.#left)
  }

  close(kind: CloseKind, detail: string): void {
    const { metrics, log, clock, random } = this.#shared
    const session = this.#session
    this.#closedByEdge = true
    metrics.closes.inc({ code: kind.name, by: 'edge' })
    log.debug('session closed', { device_id: session?.deviceId, session_id: session?.sessionId, close_code: kind.code })
    const reason = closeReason(detail === '' ? kind.text : `${kind.text}: ${detail}`)
    this.#response.end(closeEvent(kind.code, reason, retryMsAfter(kind.code, random)))
    // A device that reads nothing does not get the last event either.
    this.#ending = clock.after(streamCloseTimeoutMs, () => this.#response.destroy())
  }

  readonly #left = (error?: Error | null) => {
    if (!error) this.#session?.heard()
  }

  readonly #closed = () => {
    this.#ending?.cancel()
    const session = this.#session
    if (session === undefined) return
    if (!this.#closedByEdge) {
      // A stream has no close frame from the device: that it is gone is all there is to see.
      this.#shared.metrics.closes.inc({ code: closeCodeName(CLOSED_WITHOUT_CODE), by: 'device' })
      this.#shared.log.debug('session ended', { device_id: session.deviceId, session_id: session.sessionId })
    }
    session.socketClosed()
  }
}

/** What a WebSocket calls an end that comes without a code. */
const CLOSED_WITHOUT_CODE = 1005

/**
 * When a client that knows nothing but `retry` comes back after the stream was closed with this code. An EventSource cannot be told beforehand to stay
 * away: after a final code, or when somebody else has its place, it is at least slow.
 */
export function retryMsAfter(code: number, random: Random): number {
  if (code >= 4500 || code === CloseCode.DUPLICATE_IDENTITY) return between(300, 600, random)
  if (code === CloseCode.SUPERSEDED) return between(30, 60, random)
  if (code === CloseCode.TRY_AGAIN_LATER) return between(5, 15, random)
  return retryAfterBreakMs(random)
}

/** After a stream that just breaks: spread, or all clients of a dead edge would come to the others in the same second. */
function retryAfterBreakMs(random: Random): number {
  return between(1, 10, random)
}

function between(fromSeconds: number, toSeconds: number, random: Random): number {
  return Math.round((fromSeconds + random.next() * (toSeconds - fromSeconds)) * secondMs)
}
