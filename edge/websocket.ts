import type { IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { type RawData, WebSocket, WebSocketServer } from 'ws'
import type { Log } from '../service-kit/log.ts'
import { type CloseKind, closeCodeName, closeKinds, closeReason } from './close-codes.ts'
import type { DeviceSession } from './device-session.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import { codecFor, type FrameCodec } from './frame-codec.ts'
import type { Carrier, Transport } from './session-host.ts'

/** A WebSocket with what its shared handlers need. */
export class DeviceSocket extends WebSocket {
  session: DeviceSession | undefined = undefined
  shared: SocketShared | undefined = undefined
  closedByEdge = false
  problem: string | undefined = undefined
}

/** What all sockets of an edge share. */
export interface SocketShared {
  readonly metrics: EdgeMetrics
  readonly log: Log
}

/** How long a peer has to answer a close frame before its socket is cut. */
export const closeTimeoutMs = 5_000
const fragmentsMax = 64
const bufferedChunksMax = 1_024

/** Makes WebSockets of upgraded connections; listens to nothing itself. */
export function createWebSocketServer(frameLimitBytes: number): WebSocketServer {
  // A name of its own, as the published types do not know `closeTimeout` yet.
  const options = {
    WebSocket: DeviceSocket,
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    maxPayload: frameLimitBytes,
    maxFragments: fragmentsMax,
    maxBufferedChunks: bufferedChunksMax,
    closeTimeout: closeTimeoutMs,
    // It would answer also those who do not read the answers, which then pile up.
    autoPong: false,
    // The handshake has been read before: there is one.
    handleProtocols: (offered: ReadonlySet<string>) => codecFor([...offered])?.protocol ?? false,
  }
  return new WebSocketServer(options)
}

/** Carries one session's frames over its WebSocket. */
export function webSocketCarrier(webSocket: DeviceSocket, socket: Duplex, codec: FrameCodec, shared: SocketShared): Carrier {
  return {
    transport: new SocketTransport(webSocket, socket, codec, shared),
    bind: (session) => bindSession(webSocket, socket, session, shared),
  }
}

/** Handlers are shared by all sockets: a closure for each would cost memory a connection. */
function bindSession(webSocket: DeviceSocket, socket: Duplex, session: DeviceSession, shared: SocketShared): void {
  webSocket.session = session
  webSocket.shared = shared
  ;(socket as HeldSocket)[held] = session
  webSocket.on('message', onMessage)
  webSocket.on('ping', onPing)
  webSocket.on('pong', onPong)
  webSocket.on('error', onError)
  webSocket.on('close', onClose)
  socket.on('drain', onDrain)
}

/** The request's connection, upgraded. Not called back when the handshake fails: then ws has answered. */
export function upgradeSocket(
  server: WebSocketServer,
  request: IncomingMessage,
  socket: Duplex,
  head: Buffer,
  upgraded: (webSocket: DeviceSocket) => void,
): void {
  // The server was told to make sockets of this class.
  server.handleUpgrade(request, socket, head, (webSocket) => upgraded(webSocket as DeviceSocket))
}

const held = Symbol('session')
interface HeldSocket extends Duplex {
  [held]?: DeviceSession
}

class SocketTransport implements Transport {
  readonly codec: FrameCodec
  readonly #webSocket: DeviceSocket
  readonly #socket: Duplex
  readonly #shared: SocketShared

  constructor(webSocket: DeviceSocket, socket: Duplex, codec: FrameCodec, shared: SocketShared) {
    this.codec = codec
    this.#webSocket = webSocket
    this.#socket = socket
    this.#shared = shared
  }

  get writable(): boolean {
    // Between a write that passed the socket's high-water mark and 'drain'.
    return !this.#socket.writableNeedDrain && this.#webSocket.readyState === WebSocket.OPEN
  }

  write(frame: Buffer): void {
    corkForThisTick(this.#socket)
    // No callback: one for each message costs a third more.
    this.#webSocket.send(frame, this.codec.binary ? binaryMessage : textMessage)
  }

  ping(): void {
    this.#webSocket.ping()
  }

  close(kind: CloseKind, detail: string): void {
    const { metrics, log } = this.#shared
    const { session } = this.#webSocket
    this.#webSocket.closedByEdge = true
    metrics.closes.inc({ code: kind.name, by: 'edge' })
    log.debug('session closed', { device_id: session?.deviceId, session_id: session?.sessionId, close_code: kind.code })
    try {
      this.#webSocket.close(kind.code, closeReason(detail === '' ? kind.text : `${kind.text}: ${detail}`))
    } catch (cause) {
      // A socket must not stay open because its goodbye could not be said.
      log.error('a close frame could not be sent', { close_code: kind.code, cause })
      this.#webSocket.terminate()
    }
  }
}

const textMessage = { binary: false }
const binaryMessage = { binary: true }

let corked: Duplex[] = []

/** Everything written to one socket in a tick goes out in one system call. */
function corkForThisTick(socket: Duplex): void {
  if (socket.writableCorked > 0) return
  socket.cork()
  if (corked.length === 0) process.nextTick(uncorkAll)
  corked.push(socket)
}

function uncorkAll(): void {
  const sockets = corked
  corked = []
  for (const socket of sockets) socket.uncork()
}

function onMessage(this: WebSocket, data: RawData, isBinary: boolean): void {
  const { session, shared } = this as DeviceSocket
  try {
    // ws hands over one Buffer: `binaryType` is left at its default.
    if (Buffer.isBuffer(data)) session?.receive(isBinary ? data : data.toString('utf8'))
  } catch (cause) {
    // A defect that one device's frame brings out must not end the sessions of all others.
    shared?.log.error('a session ended by a defect', { device_id: session?.deviceId, session_id: session?.sessionId, cause })
    session?.handle({ type: 'end', kind: closeKinds.internalError })
  }
}

function onPing(this: WebSocket, data: Buffer): void {
  if ((this as DeviceSocket).session?.pinged()) this.pong(data)
}

function onPong(this: WebSocket): void {
  // Nothing is owed for it; it counts all the same, or a flood of them would cost nothing.
  ;(this as DeviceSocket).session?.ponged()
}

function onError(this: WebSocket, error: Error & { code?: string }): void {
  ;(this as DeviceSocket).problem = error.code ?? error.name
}

function onClose(this: WebSocket, code: number): void {
  const { session, shared, closedByEdge, problem } = this as DeviceSocket
  if (session === undefined || shared === undefined) return
  const facts = { device_id: session.deviceId, session_id: session.sessionId, close_code: code }
  if (!closedByEdge) shared.metrics.closes.inc({ code: closeCodeName(code), by: problem === undefined ? 'device' : 'protocol' })
  if (problem?.startsWith('WS_')) shared.log.info('a device broke the WebSocket protocol', { ...facts, problem })
  else if (!closedByEdge) shared.log.debug('session ended', facts)
  session.socketClosed()
}

function onDrain(this: Duplex): void {
  ;(this as HeldSocket)[held]?.writable()
}
