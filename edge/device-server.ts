import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer, STATUS_CODES } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Duplex } from 'node:stream'
import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import type { TokenRate } from '../service-kit/token-bucket.ts'
import { createAdmission } from './admission/admission.ts'
import { guardDoor } from './admission/front-door.ts'
import { type Listener, openListener } from './admission/listener.ts'
import type { PortLimits } from './admission/port-limits.ts'
import { looksLikeProxyHeader } from './admission/proxy-protocol.ts'
import { createRefusalLog } from './admission/refusal-log.ts'
import { answersPath, createAnswerRequests } from './answer-requests.ts'
import type { CertificateRules } from './auth/client-certificate.ts'
import { createDeviceJudge } from './auth/device-judge.ts'
import type { Identity, IdentityVerdict } from './auth/identity.ts'
import { type CloseKind, closeKinds, closeReason } from './close-codes.ts'
import type { DeviceTls } from './device-tls.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import { createEventRequests, eventsPath, type StreamedDevice } from './event-requests.ts'
import type { FrameCodec } from './frame-codec.ts'
import type { ClientFrame, ControlFrame } from './frames.ts'
import { type ConnectRequest, type Refusal, type RefusalReason, readHandshake } from './handshake.ts'
import { disbelief, errorReasonOf, goawayOf, unauthenticated, writeRefusal } from './refusals.ts'
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
  /** Undefined: devices connect in plain text. */
  readonly tls?: DeviceTls | undefined
  /** How client certificates name devices. */
  readonly certificates?: CertificateRules | undefined
  /** What bounds the port, now; `limitsChanged` says that it has changed. */
  readonly limits: () => PortLimits
  readonly frameLimitBytes: number
  /** Whether devices may come now, asked before anything costly. */
  readonly gate: { readonly sessionCount: () => number; readonly backlogged: () => boolean }
  readonly admit: (device: AdmittedDevice) => void
  /** Takes an answer that came without a session. */
  readonly takeAnswer: (deviceId: string, frame: ClientFrame) => void
  /** Whether the frame is the first answer to what the device was sent from here: such frames are not counted. */
  readonly awaits: (deviceId: string, frame: ClientFrame) => boolean
  /** What a device may send without a session. */
  readonly deviceFrames: () => TokenRate
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
  /** `/readyz` says so. Devices are let in all the same: a balancer needs time to notice. */
  setReady(ready: boolean): void
  /** Whether new devices are let in. */
  setOpen(open: boolean): void
  /** Connections that are not sessions yet. */
  readonly handshakeCount: number
  /** Of every kind, sessions too. */
  readonly connectionCount: number
  limitsChanged(): void
  close(): Promise<void>
}

/** Refusals that say nothing against the address. */
const blameless: ReadonlySet<RefusalReason> = new Set<RefusalReason>([
  'draining',
  'full',
  'backlog',
  'rate',
  'address_connections',
  'address_rate',
  'address_failures',
  'identity_unavailable',
  // Who has been authenticated, or has no business here and says so.
  'answers_full',
  'answers_rate',
  'invalid_answers',
  'no_stream',
  'sent_away',
  'too_large',
])
const headerLimitBytes = 8 * 1024
const headersMax = 64
const keepAliveTimeoutMs = 5_000
/** Above the connection limit: for health checks, and to be able to say why somebody is refused. */
const connectionHeadroom = 256
/** Then a client that keeps its connection for requests has to open another. */
const requestsPerConnection = 100
/** How often Node looks for requests that take too long, besides the clock of the handshakes. */
const requestCheckMs = 2_000

/** Opens the port. Throws PortTakenError when it is in use. */
export async function serveDevices(options: DeviceServerOptions): Promise<DeviceServer> {
  const { tls, gate, limits, clock, random, log, metrics, retryAfter } = options
  const certificates = tls?.asksClients ? options.certificates : undefined
  const judge = createDeviceJudge({ identity: options.identity, certificates, clock, metrics })
  const webSockets = createWebSocketServer(options.frameLimitBytes)
  const shared = { metrics, log, clock, random }
  const admission = createAdmission({ limits, retryAfter, clock, random, metrics })
  const logRefusal = createRefusalLog(log, clock)
  let ready = false
  let open = false
  let handshakes = 0
  let lingering = 0

  const note = (reason: RefusalReason, answer: number, socket: Duplex, method?: string) => {
    metrics.refusals.inc({ reason })
    const visit = door.visitOf(socket)
    if (blameless.has(reason)) visit?.succeeded()
    else visit?.failed()
    // The device's own address, also behind a proxy. Never the URL, a header or a subprotocol: credentials travel in them.
    const address = visit?.address ?? ('remoteAddress' in socket ? String(socket.remoteAddress) : undefined)
    logRefusal(reason, { answer, method, remote_address: address })
  }

  const refuse = (request: IncomingMessage, socket: Duplex, refusal: Refusal) => {
    note(refusal.reason, refusal.status, socket, request.method)
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
    if (lingering >= limits().refusedSocketsMax) return refuse(request, socket, refusal)
    upgradeSocket(webSockets, request, socket, head, (webSocket) => {
      door.settled(socket)
      note(refusal.reason, kind.code, socket, request.method)
      metrics.lingering.set(++lingering)
      webSocket.on('error', ignore)
      webSocket.on('close', () => metrics.lingering.set(--lingering))
      webSocket.send(codec.encodeControl(frame), { binary: codec.binary })
      webSocket.close(kind.code, closeReason(kind.text))
    })
  }

  /** Why nobody can be let in now. */
  const shut = (): Refusal | undefined => {
    const retry = () => ({ 'retry-after': String(retryAfter.next()) })
    if (!open) return { status: 503, reason: 'draining', message: 'this edge drains', headers: retry() }
    // The handshake in question is among them.
    if (gate.sessionCount() + handshakes > limits().connectionLimit) {
      return { status: 503, reason: 'full', message: 'this edge is full', headers: retry() }
    }
    if (gate.backlogged())
      return { status: 503, reason: 'backlog', message: 'too many devices connect at once', headers: retry() }
    return undefined
  }

  const upgrade = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const asked = hasTooManyHeaders(request) ?? readHandshake(request, options.allowedOrigins)
    if ('status' in asked) return refuse(request, socket, asked)
    const { credential } = asked
    const visit = door.visitOf(socket)
    const closed = visit?.request() ?? shut()
    if (closed !== undefined) {
      if (credential?.from !== 'subprotocol') return refuse(request, socket, closed)
      return tell(request, socket, head, asked.codec, closed, closeKinds.tryAgainLater, goawayOf(closed))
    }
    const verdict = await judge(socket, credential)
    if (verdict === undefined)
      return refuse(request, socket, unauthenticated('unauthenticated', 'a bearer credential is required'))
    if (verdict.ok) visit?.authenticated()
    else {
      const { refusal, kind } = disbelief(verdict, retryAfter)
      if (credential?.from !== 'subprotocol') return refuse(request, socket, refusal)
      const reason = errorReasonOf(verdict)
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
      door.settled(socket)
      admitted({
        carrier: webSocketCarrier(webSocket, socket, asked.codec, shared),
        acknowledges: asked.acknowledges,
        identified,
      })
    })
  }

  /** On the monotonic clock. */
  const momentOf = (timeMs: number | undefined) =>
    timeMs === undefined ? Number.POSITIVE_INFINITY : clock.monotonic() + Math.max(0, timeMs - clock.now())

  const admitted = ({ carrier, acknowledges, identified }: StreamedDevice) => {
    const { deviceId, accountId } = identified
    options.admit({
      carrier,
      // Cut from a header, they would keep the whole of it alive for as long as the session lasts.
      deviceId: copied(deviceId),
      accountId: accountId === undefined ? '' : copied(accountId),
      acknowledges,
      credentialEndsAt: momentOf(identified.expiresAtMs),
      credentialEndsAtMax: momentOf(identified.certificateEndsAtMs),
    })
  }

  const onUpgrade = (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    if (streaming.has(socket)) return void socket.destroy()
    void handshake(() => upgrade(request, socket, head), socket)
  }

  /** Counts it as a handshake for as long as it takes. */
  const handshake = (work: () => Promise<void>, socket: Duplex) => {
    metrics.handshakes.set(++handshakes)
    return settled(work(), socket).finally(() => metrics.handshakes.set(--handshakes))
  }

  const settled = (work: Promise<void>, socket: Duplex) =>
    work.catch((cause: unknown) => {
      log.error('a request failed by a defect', { cause })
      socket.destroy()
    })

  const requestsShared = {
    allowedOrigins: options.allowedOrigins,
    judge,
    retryAfter: options.retryAfter,
    authenticated: ({ socket }: IncomingMessage) => door.visitOf(socket)?.authenticated(),
    note: (reason: RefusalReason, answer: number, { socket, method }: IncomingMessage) => note(reason, answer, socket, method),
  }
  // What comes behind a request for a stream would be answered when the stream ends, and kept until then.
  const streaming = new WeakSet<Duplex>()
  const events = createEventRequests({
    ...requestsShared,
    shut: ({ socket }) => door.visitOf(socket)?.request() ?? shut(),
    admit: (device) => admitted(device),
    shared,
  })
  const answers = createAnswerRequests({
    ...requestsShared,
    shut: ({ socket }) => door.visitOf(socket)?.request(),
    bodyLimitBytes: options.frameLimitBytes,
    awaits: options.awaits,
    take: options.takeAnswer,
    deviceFrames: options.deviceFrames,
    showCredential: options.showCredential,
    clock,
    metrics,
  })

  const onRequest = (request: IncomingMessage, response: ServerResponse) => {
    const { socket } = request
    if (streaming.has(socket)) return void socket.destroy()
    const path = request.url?.split('?', 1)[0]
    const visit = door.visitOf(socket)
    const tooMany = hasTooManyHeaders(request)
    if (tooMany === undefined && request.method === 'OPTIONS') visit?.succeeded() // a browser asks beforehand, without its credential
    if (tooMany === undefined && path === answersPath) {
      return void settled(answers(request, response), socket).finally(() => door.settled(socket))
    }
    if (tooMany === undefined && path === eventsPath) {
      if (request.method === 'GET') streaming.add(socket)
      return void handshake(() => events(request, response), socket).finally(() => door.settled(socket))
    }
    door.settled(socket)
    const refuseRequest = ({ status, reason, message, headers }: Refusal) => {
      note(reason, status, socket, request.method)
      response.writeHead(status, { connection: 'close', 'content-type': 'text/plain', ...headers })
      response.end(`${message}\n`)
    }
    if (tooMany !== undefined) return refuseRequest(tooMany)
    if (path === '/healthz' || path === '/readyz') {
      // One connection over a limit that is heard at all is answered: a balancer must not take a busy edge for a dead one.
      const closed = visit?.refusal === undefined ? visit?.request() : undefined
      if (closed !== undefined) return refuseRequest(closed)
      visit?.succeeded()
      return answerHealth(path, ready, request, response)
    }
    const asked = readHandshake(request, options.allowedOrigins)
    // Without an upgrade there is always something wrong with it.
    refuseRequest(
      'status' in asked ? asked : { status: 426, reason: 'not_websocket', message: 'devices connect with a WebSocket' },
    )
  }

  const onClientError = (error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Duplex) => {
    const status = error.code === 'HPE_HEADER_OVERFLOW' ? 431 : error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 408 : 400
    // A client that went away in the middle has nobody left to be told.
    if (error.code === 'ECONNRESET' || !socket.writable) {
      socket.destroy()
      return
    }
    const isProxyHeader = error.rawPacket !== undefined && looksLikeProxyHeader(error.rawPacket)
    const reason = status === 408 ? 'timeout' : isProxyHeader ? 'proxy_untrusted' : 'malformed'
    note(reason, status, socket)
    writeRefusal(socket, { status, reason, message: STATUS_CODES[status] ?? 'error' })
  }

  const http = {
    maxHeaderSize: headerLimitBytes,
    connectionsCheckingInterval: requestCheckMs,
    keepAliveTimeout: keepAliveTimeoutMs,
    noDelay: true,
  }
  const server = tls === undefined ? createServer(http, onRequest) : secureServer(tls)

  function secureServer({ context, asksClients, onChange }: DeviceTls) {
    // A certificate that does not hold is judged with the request, so that its device is told what is wrong.
    const secure = createTlsServer({ ...http, ...context, requestCert: asksClients, rejectUnauthorized: false }, onRequest)
    secure.on('tlsClientError', () => metrics.tlsFailures.inc())
    onChange((changed) => secure.setSecureContext(changed))
    return secure
  }
  const takeLimits = () => {
    const { connectionLimit, handshakeTimeoutMs } = limits()
    server.maxConnections = connectionLimit + connectionHeadroom
    server.headersTimeout = handshakeTimeoutMs
    server.requestTimeout = handshakeTimeoutMs
  }
  takeLimits()
  // Node leaves further ones out without a word: one more than are allowed shows that there are too many.
  server.maxHeadersCount = headersMax + 1
  server.maxRequestsPerSocket = requestsPerConnection
  server.on('upgrade', onUpgrade)
  server.on('clientError', onClientError)
  // ws replies to what its handshake does not like (key, version); it only has to be told of.
  webSockets.on('wsClientError', (_error: Error, socket: Duplex, request: IncomingMessage) => {
    refuse(request, socket, { status: 400, reason: 'malformed', message: 'the WebSocket handshake is malformed' })
  })
  const door = guardDoor(server, {
    admission,
    limits,
    clock,
    metrics,
    turnedAway(socket, refusal) {
      note(refusal.reason, refusal.status, socket)
      if (!socket.destroyed) writeRefusal(socket, refusal)
    },
    counted() {
      metrics.connections.set(door.size)
      listener?.check()
    },
  })
  server.on('drop', () => metrics.refusals.inc({ reason: 'full' }))

  let listener: Listener | undefined
  listener = await openListener(server, options.address, { limits, connectionCount: () => door.size, clock, log, metrics })
  const { address } = listener
  ready = open = true
  return {
    address,
    setReady(now) {
      ready = now
    },
    setOpen(now) {
      open = now
    },
    get handshakeCount() {
      return handshakes
    },
    get connectionCount() {
      return door.size
    },
    limitsChanged() {
      takeLimits()
      door.limitsChanged()
      listener?.check()
    },
    close: () =>
      new Promise((resolve) => {
        listener?.stop()
        server.close(() => resolve())
        door.close()
      }),
  }
}

function hasTooManyHeaders(request: IncomingMessage): Refusal | undefined {
  if (request.rawHeaders.length <= 2 * headersMax) return undefined
  return { status: 431, reason: 'malformed', message: `a request has at most ${headersMax} headers` }
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

/** A new string of the same characters, which are ASCII. */
function copied(id: string): string {
  return Buffer.from(id, 'latin1').toString('latin1')
}

function ignore(): void {}
