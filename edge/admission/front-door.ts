import type { Server, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type TLSSocket, Server as TlsServer } from 'node:tls'
import type { Clock } from '../../service-kit/clock.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { Refusal } from '../handshake.ts'
import type { Admission, Visit } from './admission.ts'
import { createDeadlineQueue } from './deadline-queue.ts'
import type { PortLimits } from './port-limits.ts'
import { createProxyReader, type ProxySource } from './proxy-protocol.ts'

/** Stands between the port and the server, which may be one for TLS: a connection is counted, judged and timed before the server sees it. */
export interface FrontDoor {
  /** By the socket that the server shows: with TLS the secured one. Undefined for what did not come through this door. */
  visitOf(socket: Duplex): Visit | undefined
  /** The connection has shown what it is, a request or a session: its time for that no longer runs. */
  settled(socket: Duplex): void
  /** Connections of every kind. */
  readonly size: number
  /** The limits are others now. */
  limitsChanged(): void
  /** Cuts all connections. */
  close(): void
}

export interface FrontDoorOptions {
  readonly admission: Admission
  readonly limits: () => PortLimits
  readonly clock: Clock
  readonly metrics: Pick<EdgeMetrics, 'proxyHeaders' | 'cutConnections' | 'waiting'>
  /** A connection that will not be heard. It is for the caller to tell it, if it is not destroyed already, and to close it. */
  readonly turnedAway: (socket: Duplex, refusal: Refusal) => void
  /** There is one connection more or less. */
  readonly counted: () => void
  /** How long a proxy may take for its header; proxy-protocol.txt asks for 3 s or more. Default 5 s. */
  readonly proxyHeaderTimeoutMs?: number
}

/** Takes the connections of a server over, and hands those on that may come in. */
export function guardDoor(server: Server, options: FrontDoorOptions): FrontDoor {
  const { admission, clock, metrics, turnedAway, proxyHeaderTimeoutMs = 5_000 } = options
  const sockets = new Set<Socket>()
  const visits = new WeakMap<Duplex, Visit>()
  const speaksTls = server instanceof TlsServer
  // While TLS shakes hands, by its two ends, and which socket it made of which.
  const securing = new Map<string, Socket>()
  // Kept from its start: a socket that is closed no longer knows its ends.
  const securingKeys = new WeakMap<Socket, string>()
  const securedOf = new WeakMap<Socket, TLSSocket>()
  const rawOf = new WeakMap<Duplex, Socket>()
  const inner = server.listeners('connection')
  server.removeAllListeners('connection')

  /** Whom words reach: in plain text nobody who waits for TLS. */
  const turnAway = (socket: Socket, refusal: Refusal) => {
    const secured = securedOf.get(socket)
    if (speaksTls && secured === undefined) socket.destroy()
    turnedAway(secured ?? socket, refusal)
  }
  const timeout: Refusal = { status: 408, reason: 'timeout', message: 'the request took too long' }
  const crowded: Refusal = { status: 503, reason: 'handshakes', message: 'too many requests are unfinished' }
  const handshakes = createDeadlineQueue<Socket>({
    clock,
    timeoutMs: () => options.limits().handshakeTimeoutMs,
    expired: (socket) => turnAway(socket, timeout),
  })
  /** Slow ones must not fill the edge: those who come after them, and are quick, find a place. */
  const wait = (socket: Socket) => {
    handshakes.add(socket)
    if (handshakes.size > options.limits().handshakesMax) {
      const { oldest } = handshakes
      if (oldest !== undefined) {
        handshakes.remove(oldest)
        turnAway(oldest, crowded)
      }
    }
    metrics.waiting.set(handshakes.size)
  }
  const settle = (socket: Socket) => {
    handshakes.remove(socket)
    metrics.waiting.set(handshakes.size)
  }
  const headers = createDeadlineQueue<Socket>({
    clock,
    timeoutMs: () => Math.min(proxyHeaderTimeoutMs, options.limits().handshakeTimeoutMs),
    expired: (socket) => badHeader(socket, 'timeout'),
  })

  /** Not told what is wrong: whoever is at such an address is a proxy, or has no business there. */
  const badHeader = (socket: Socket, result: 'malformed' | 'timeout') => {
    metrics.proxyHeaders.inc({ result })
    socket.destroy()
    turnedAway(socket, { status: 400, reason: 'proxy_header', message: 'a PROXY header is required' })
  }

  const enter = (socket: Socket, source: string | undefined, peer: string) => {
    const visit = admission.arrive(source, peer)
    visits.set(socket, visit)
    if (visit.cut && visit.refusal !== undefined) {
      metrics.cutConnections.inc({ reason: visit.refusal.reason })
      return turnAway(socket, visit.refusal)
    }
    wait(socket)
    if (speaksTls) {
      const key = endsOf(socket)
      securing.set(key, socket)
      securingKeys.set(socket, key)
    }
    for (const listener of inner) listener.call(server, socket)
  }

  /** Reads the header off the connection, and lets it enter as the client that the header names. */
  const readHeader = (socket: Socket, peer: string) => {
    const reader = createProxyReader()
    headers.add(socket)
    const onData = (chunk: Buffer) => {
      const verdict = reader.push(chunk)
      if (verdict.type === 'more') return
      headers.remove(socket)
      socket.off('data', onData)
      socket.off('end', onEnd)
      if (verdict.type === 'malformed') return badHeader(socket, 'malformed')
      metrics.proxyHeaders.inc({ result: resultOf(verdict.version, verdict.source) })
      socket.pause()
      if (verdict.rest.length > 0) socket.unshift(verdict.rest)
      enter(socket, verdict.source?.address, peer)
      // TLS takes what is held by itself, a tick later; flowing it would be lost.
      if (!speaksTls) socket.resume()
    }
    const onEnd = () => void socket.destroy()
    socket.on('data', onData)
    socket.once('end', onEnd)
  }

  server.on('connection', (socket: Socket) => {
    socket.on('error', ignore)
    const { remoteAddress } = socket
    // It has gone while it waited to be accepted.
    if (remoteAddress === undefined) return void socket.destroy()
    sockets.add(socket)
    socket.once('close', forget)
    if (options.limits().proxyAddresses.has(remoteAddress)) readHeader(socket, remoteAddress)
    else enter(socket, remoteAddress, remoteAddress)
    options.counted()
  })
  /** TLS shakes hands with it no more. Its ends may be those of another connection by now. */
  const securedOrGone = (raw: Socket) => {
    const key = securingKeys.get(raw)
    if (key === undefined) return
    securingKeys.delete(raw)
    if (securing.get(key) === raw) securing.delete(key)
  }
  // Before the server's own listener, which is the first to ask for the visit.
  server.prependListener('secureConnection', (secured: TLSSocket) => {
    const raw = securing.get(endsOf(secured))
    if (raw === undefined) return
    securedOrGone(raw)
    const visit = visits.get(raw)
    if (visit !== undefined) visits.set(secured, visit)
    securedOf.set(raw, secured)
    rawOf.set(secured, raw)
  })
  // Shared by all connections: a closure for each would cost memory for as long as a session lasts.
  function forget(this: Socket) {
    sockets.delete(this)
    securedOrGone(this)
    visits.get(this)?.leave()
    settle(this)
    headers.remove(this)
    options.counted()
  }

  return {
    visitOf: (socket) => visits.get(socket),
    settled: (socket) => settle(rawOf.get(socket) ?? (socket as Socket)),
    get size() {
      return sockets.size
    },
    limitsChanged() {
      handshakes.changed()
      headers.changed()
    },
    close() {
      for (const socket of sockets) socket.destroy()
      handshakes.stop()
      headers.stop()
    },
  }
}

function resultOf(version: 1 | 2, source: ProxySource | undefined): string {
  return source === undefined ? 'local' : `v${version}`
}

function endsOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string {
  return `${localAddress} ${localPort} ${remoteAddress} ${remotePort}`
}

function ignore(): void {}
