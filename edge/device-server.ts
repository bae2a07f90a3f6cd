import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Clock } from '../service-kit/clock.ts'
import { formatHostPort, PortTakenError, parseHostPort } from '../service-kit/listen-address.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import { answersPath, createAnswerRequests } from './answer-requests.ts'
import type { Identity, IdentityVerdict } from './auth/identity.ts'
import { type CloseKind, closeKinds, closeReason } from './close-codes.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import { createEventRequests, eventsPath, type StreamedDevice } from './event-requests.ts'
import type { FrameCodec } from './frame-codec.ts'
import type { ClientFrame, ControlFrame } from './frames.ts'
import { type ConnectRequest, type Refusal, type RefusalReason, readHandshake } from './handshake.ts'
import { disbelief, unauthenticated, writeRefusal } from './refusals.ts'
import type { RetryAfter } from './retry-after.ts'
import type { Carrier } from './session-host.ts'
import { createWebSocketServer, upgradeSocket, webSocketCarrier } from './websocket.ts'

/** A device that has been let in: believed, upgraded, not yet registered. */
export interface AdmittedDevice {
  readonly carrier: Carrier
  readonly deviceId: string
  /** Empty for none. */
  readonly accountId: string
  readonly acknowledges: boolean
  /** On the monotonic clock in ms; Infinity for never. */
  readonly credentialEndsAt: number
  /** No new credential keeps its session longer. */
  readonly credentialEndsAtMax: number
}

export interface DeviceServerOptions {
  /** `host:port`; port 0 lets the system choose. */
  readonly address: string
  readonly allowedOrigins: readonly string[]
  readonly identity: Identity
  /** Most sessions and handshakes together. */
  readonly connectionLimit: number
  readonly frameLimitBytes: number
  /** Most refused devices at once that are upgraded only to be told why; more get plain HTTP. Default 256. */
  readonly lingeringMax?: number
  /** How long a client has for its request. Default 10 s. */
  readonly requestTimeoutMs?: number
  /** Whether devices may come now, asked before anything costly. */
  readonly gate: { readonly sessionCount: () => number; readonly backlogged: () => boolean }
  readonly admit: (device: AdmittedDevice) => void
  /** Takes an answer that came without a session. */
  readonly takeAnswer: (deviceId: string, frame: ClientFrame) => void
  /** Shows a new credential to the event stream of that device; false when none is open here. */
  readonly showCredential: (deviceId: string, token: string) => boolean
  readonly retryAfter: RetryAfter
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
}

/** Where devices connect. */
export interface DeviceServer {
  /** The `host:port` that it really has. */
  readonly address: string
  /** `/readyz` says so; a server that is not ready refuses new devices. */
  setReady(ready: boolean): void
  /** Connections that are not sessions yet. */
  readonly handshakeCount: number
  close(): Promise<void>
}

const headerLimitBytes = 8 * 1024
const headersMax = 64
const keepAliveTimeoutMs = 5_000
/** Above the connection limit: for health checks, and to be able to say why somebody is refused. */
const connectionHeadroom = 256
const backlog = 1_024

/** Opens the port. Throws PortTakenError when it is in use. */
export async function serveDevices(options: DeviceServerOptions): Promise<DeviceServer> {
  const { identity, gate, clock, log, metrics, requestTimeoutMs = 10_000, lingeringMax = 256 } = options
  const webSockets = createWebSocketServer(options.frameLimitBytes)
  const shared = { metrics, log, clock, random: options.random }
  const sockets = new Set<Socket>()
  let ready = false
  let handshakes = 0
  let lingering = 0

  const note = (reason: RefusalReason, answer: number, request: IncomingMessage | undefined, socket: Duplex | undefined) => {
    metrics.refusals.inc({ reason })
    // Never the URL, a header or a subprotocol: credentials travel in them.
    log.info('device refused', {
      reason,
      answer,
      method: request?.method,
      remote_address: socket !== undefined && 'remoteAddress' in socket ? socket.remoteAddress : undefined,
    })
  }

  const refuse = (request: IncomingMessage, socket: Duplex, refusal: Refusal) => {
    note(refusal.reason, refusal.status, request, socket)
    writeRefusal(socket, refusal)
  }

  /** A browser cannot read a refused handshake: its client is let in only to be told. */
  const tell = (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    codec: FrameCodec,
    refusal: Refusal,
    kind: CloseKind,
    frame: ControlFrame,
  ) => {
    if (lingering >= lingeringMax) return refuse(request, socket, refusal)
    upgradeSocket(webSockets, request, socket, head, (webSocket) => {
      note(refusal.reason, kind.code, request, socket)
      metrics.lingering.set(++lingering)
      webSocket.on('error', ignore)
      webSocket.on('close', () => metrics.lingering.set(--lingering))
      webSocket.send(codec.encodeControl(frame), { binary: codec.binary })
      webSocket.close(kind.code, closeReason(kind.text))
    })
  }

  /** Why nobody can be let in now. */
  const shut = (): Refusal | undefined => {
    const retry = () => ({ 'retry-after': String(options.retryAfter.next()) })
    if (!ready) return { status: 503, reason: 'draining', message: 'this edge drains', headers: retry() }
    // The handshake in question is among them.
    if (gate.sessionCount() + handshakes > options.connectionLimit) {
      return { status: 503, reason: 'full', message: 'this edge is full', headers: retry() }
    }
    if (gate.backlogged())
      return { status: 503, reason: 'backlog', message: 'too many devices connect at once', headers: retry() }
    return undefined
  }

  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const asked = readHandshake(request, options.allowedOrigins)
    if ('status' in asked) return refuse(request, socket, asked)
    const { credential } = asked
    const closed = shut()
    if (closed !== undefined) {
      if (credential?.from !== 'subprotocol') return refuse(request, socket, closed)
      const goaway: ControlFrame = {
        type: 'goaway',
        reason: closed.reason === 'draining' ? 'drain' : 'overload',
        reconnect_after_ms: Number(closed.headers?.['retry-after'] ?? 1) * 1000,
      }
      return tell(request, socket, head, asked.codec, closed, closeKinds.tryAgainLater, goaway)
    }
    if (credential === undefined)
      return refuse(request, socket, unauthenticated('unauthenticated', 'a bearer credential is required'))
    const verdict = await identity.authenticate(credential)
    if (!verdict.ok) {
      const { refusal, kind } = disbelief(verdict, options.retryAfter)
      if (credential.from === 'header') return refuse(request, socket, refusal)
      const reason = verdict.verdict === 'unavailable' ? 'OVERLOADED' : 'UNAUTHENTICATED'
      return tell(request, socket, head, asked.codec, refusal, kind, { type: 'error', reason, message: verdict.detail })
    }
    admit(request, socket, head, asked, verdict)
  }

  const admit = (
    request: IncomingMessage,
    socket: Duplex,
    head: Buffer,
    asked: ConnectRequest,
    identified: IdentityVerdict & { ok: true },
  ) => {
    upgradeSocket(webSockets, request, socket, head, (webSocket) => {
      admitted({
        carrier: webSocketCarrier(webSocket, socket, asked.codec, shared),
        acknowledges: asked.acknowledges,
        identified,
      })
    })
  }

  const admitted = ({ carrier, acknowledges, identified: { deviceId, accountId, expiresAtMs } }: StreamedDevice) => {
    options.admit({
      carrier,
      // Cut from a header, they would keep the whole of it alive for as long as the session lasts.
      deviceId: copied(deviceId),
      accountId: accountId === undefined ? '' : copied(accountId),
      acknowledges,
      credentialEndsAtMax: Number.POSITIVE_INFINITY,
      credentialEndsAt:
        expiresAtMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonic() + Math.max(0, expiresAtMs - clock.now()),
    })
  }

  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    metrics.handshakes.set(++handshakes)
    settled(upgrade(request, socket, head), socket).finally(() => metrics.handshakes.set(--handshakes))
  }

  const settled = (work: Promise<void>, socket: Duplex) =>
    work.catch((cause: unknown) => {
      log.error('a request failed by a defect', { cause })
      socket.destroy()
    })

  const requestsShared = {
    allowedOrigins: options.allowedOrigins,
    identity,
    retryAfter: options.retryAfter,
    note: (reason: RefusalReason, answer: number, request: IncomingMessage) => note(reason, answer, request, request.socket),
  }
  const events = createEventRequests({ ...requestsShared, shut, admit: (device) => admitted(device), shared })
  const answers = createAnswerRequests({
    ...requestsShared,
    bodyLimitBytes: options.frameLimitBytes,
    take: options.takeAnswer,
    showCredential: options.showCredential,
    clock,
    metrics,
  })

  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url?.split('?', 1)[0]
    if (path === '/healthz' || path === '/readyz') return answerHealth(path, ready, request, response)
    if (path === answersPath) return void settled(answers(request, response), request.socket)
    if (path === eventsPath) {
      metrics.handshakes.set(++handshakes)
      return void settled(events(request, response), request.socket).finally(() => metrics.handshakes.set(--handshakes))
    }
    const asked = readHandshake(request, options.allowedOrigins)
    // Without an upgrade there is always something wrong with it.
    const refusal: Refusal =
      'status' in asked ? asked : { status: 426, reason: 'not_websocket', message: 'devices connect with a WebSocket' }
    note(refusal.reason, refusal.status, request, request.socket)
    response.writeHead(refusal.status, { connection: 'close', 'content-type': 'text/plain', ...refusal.headers })
    response.end(`${refusal.message}\n`)
  }

  const onClientError = (error: NodeJS.ErrnoException, socket: Duplex) => {
    const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
    // A client that went away in the middle has nobody left to be told.
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const reason = status === 408 ? 'timeout' : 'malformed'
    note(reason, status, undefined, socket)
    writeRefusal(socket, { status, reason, message: STATUS_CODES[status] ?? 'error' })
  }

  const server = createServer(
    {
      maxHeaderSize: headerLimitBytes,
      headersTimeout: requestTimeoutMs,
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: Math.min(requestTimeoutMs, 2_000),
      keepAliveTimeout: keepAliveTimeoutMs,
      noDelay: true,
    },
    onRequest,
  )
  server.maxConnections = options.connectionLimit + connectionHeadroom
  server.maxHeadersCount = headersMax
  server.on('upgrade', onUpgrade)
  server.on('clientError', onClientError)
  // ws replies to what its handshake does not like (key, version); it only has to be told of.
  webSockets.on('wsClientError', (_error: Error, socket: Duplex, request: IncomingMessage) => {
    refuse(request, socket, { status: 400, reason: 'malformed', message: 'the WebSocket handshake is malformed' })
  })
  server.on('connection', (socket) => {
    socket.on('error', ignore)
    sockets.add(socket)
    socket.on('close', forget)
  })
  function forget(this: Socket) {
    sockets.delete(this)
  }
  server.on('drop', () => metrics.refusals.inc({ reason: 'full' }))

  const address = await listen(server, options.address)
  ready = true
  return {
    address,
    setReady(now) {
      ready = now
    },
    get handshakeCount() {
      return handshakes
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}

function answerHealth(path: string, ready: boolean, request: IncomingMessage, response: ServerResponse): void {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    response.writeHead(405, { allow: 'GET, HEAD', connection: 'close' }).end()
    return
  }
  const well = path === '/healthz' || ready
  response.writeHead(well ? 200 : 503, { 'content-type': 'text/plain', 'cache-control': 'no-store' })
  response.end(well ? 'ok\n' : 'not ready\n')
}

function listen(server: Server, asked: string): Promise<string> {
  const wanted = parseHostPort(asked)
  if (wanted === undefined) throw new TypeError(`"${asked}" is not host:port`)
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(cause.code === 'EADDRINUSE' ? new PortTakenError(asked, cause) : cause)
    })
    server.listen({ host: wanted.host, port: wanted.port, backlog }, () => {
      const bound = server.address()
      const port = typeof bound === 'object' && bound !== null ? bound.port : wanted.port
      resolve(formatHostPort({ host: wanted.host, port }))
    })
  })
}

/** A new string of the same characters, which are ASCII. */
function copied(id: string): string {
  return Buffer.from(id, 'latin1').toString('latin1')
}

function ignore(): void {}
