import { EventEmitter, on } from 'node:events'
import type { Duplex } from 'node:stream'
import { Metadata } from 'nice-grpc-common'
import { AwaitedResults } from '../../edge/awaited-results.ts'
import { createEdgeService, edgeIdMetadata } from '../../edge/deliver.ts'
import type { DeviceSession } from '../../edge/device-session.ts'
import { createEdgeMetrics } from '../../edge/edge-metrics.ts'
import { FinalAnswers } from '../../edge/final-answers.ts'
import type { Flusher } from '../../edge/flush-calls.ts'
import { jsonCodec } from '../../edge/json-codec.ts'
import { createRegistration, type RegistrationOptions } from '../../edge/registration.ts'
import { createReplacedReports } from '../../edge/replaced.ts'
import { createSessionFactory } from '../../edge/session-factory.ts'
import type { SessionHost, SessionSettings } from '../../edge/session-host.ts'
import { SessionTable } from '../../edge/session-table.ts'
import { createTimerWheel } from '../../edge/timer-wheel.ts'
import { createUnregistration } from '../../edge/unregistration.ts'
import { type DeviceSocket, webSocketCarrier } from '../../edge/websocket.ts'
import { DeliverRequest, type DeliverResponse } from '../../gen/push/internal/v1/edge.ts'
import type { SessionKey } from '../../gen/push/internal/v1/registry.ts'
import type { DeepPartial, UplinkServiceClient } from '../../gen/push/internal/v1/uplink.ts'
import type { CallBounds } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'

/** How long a session has for registering; longer than any pause between attempts. */
export const registerTimeoutMs = 5_000
/** How late deadlines may be noticed. */
export const wheelTickMs = 2_500

/** Nothing but what a test asks for comes due while it runs. */
const farAwayMs = 1e9
const settings: SessionSettings = {
  registerTimeoutMs,
  pingIntervalMs: farAwayMs,
  pongTimeoutMs: farAwayMs,
  lifetimeMs: farAwayMs,
  lifetimeJitterMs: 0,
  slotMaxMs: 1_000,
  longestSlotMs: 1_000,
  slotGraceMs: 1_000,
  finishMs: 5_000,
  stuckMs: farAwayMs,
  sweepMs: farAwayMs,
  outboxAgeMs: farAwayMs,
  deliveryRate: undefined,
  outbox: { bytes: 65_536, count: 64 },
  messageFrameLimitBytes: 65_536,
  clientFrameLimitBytes: 65_536,
  pendingMax: 64,
  invalidFramesMax: 10,
  credentialRefreshMinMs: farAwayMs,
  unreadRepliesMax: 100,
  takeoversMax: 5,
  deviceFrames: { ratePerSecond: 200, burst: 1_000 },
}

/** What an edge needs of the rest of the plane. */
export interface EdgeSurroundings {
  readonly registry: RegistrationOptions['registry'] & Parameters<typeof createUnregistration>[0]['registry']
  readonly uplink: Pick<UplinkServiceClient<CallBounds>, 'report'>
  readonly metrics: Metrics
  /** Whether rows of ended sessions are removed; false only to see what happens then. */
  readonly removesRows: boolean
  /** The edge has begun to close this session's socket: `gone` is to be called once it is closed. */
  socketClosing(sessionId: string, gone: () => void): void
  /** Has the router flush the inbox for a session; without it no session may want to. */
  readonly flush?: (flusher: Flusher) => void
  /** The device gets a frame, as text. */
  readonly frame?: (letter: string, frame: string) => void
}

/** An edge as server.ts puts it together, without ports: the parts are the real ones, sockets and calls are the test's. */
export function createSimulatedEdge(edgeId: string, surroundings: EdgeSurroundings) {
  const clock = new SteeredClock()
  const metrics = createEdgeMetrics(surroundings.metrics)
  let firstByte = 0
  const random = {
    next: () => 0,
    // The session ids that come of it begin with the letter that was asked for.
    bytes: (length: number) => Uint8Array.from({ length }, (_, at) => (at === 0 ? firstByte : 0)),
  }
  const shared = { clock, random, log: silentLog, metrics }
  const unregistration = createUnregistration({ registry: surroundings.registry, ...shared })
  const reports = createReplacedReports({ uplink: surroundings.uplink, edgeId, ...shared })
  const registration = createRegistration({
    registry: surroundings.registry,
    edgeId,
    edgeAddress: '127.0.0.1:7402',
    ratePerSecond: 1_000,
    timeoutMs: registerTimeoutMs,
    callTimeoutMs: 2_000,
    ...shared,
  })
  const sessions = new SessionTable()
  const wheel = createTimerWheel({ clock, tickMs: wheelTickMs, slotCount: 16 })
  const unregister = (key: SessionKey) => {
    if (surroundings.removesRows) unregistration.add(key)
  }
  const host: SessionHost = {
    ...shared,
    settings,
    wheel,
    // No device is ever suspected of being away.
    liveness: { now: () => clock.monotonic(), monotonicAt: (ms) => ms, afterReading() {}, stop() {} },
    sessions,
    identity: undefined,
    finalAnswers: new FinalAnswers(clock),
    awaitedResults: new AwaitedResults(metrics),
    outboxBudget: { usedBytes: 0, limitBytes: 1e9 },
    unregister,
    failed(_session, cause) {
      throw cause
    },
    reportDuplicate() {},
    tellReplaced(rows, replacer) {
      for (const row of rows) {
        if (row.edgeId !== edgeId) {
          reports.report(row, replacer)
          continue
        }
        const replaced = sessions.find(row.deviceId, row.sessionId)
        if (replaced !== undefined) replaced.handle({ type: 'replaced', replacer })
        else unregister({ deviceId: row.deviceId, sessionId: row.sessionId, epoch: row.epoch })
      }
    },
    flush: surroundings.flush ?? ((flusher) => unexpected(`session ${flusher.sessionId} flushes`)),
    // No device answers late: that is what other tests are about.
    reportLate: ({ deviceId }) => unexpected(`${deviceId} answers late`),
    ended: (session) => sessions.remove(session),
  }
  const factory = createSessionFactory({ host, registration, log: silentLog })
  const service = createEdgeService({ edgeId, host, drain: neverDrained, log: silentLog })

  return {
    edgeId,
    clock,
    sessions,
    /** Lets a device in. Its session's id begins with `letter`. */
    connect(deviceId: string, letter: string): { readonly session: DeviceSession; closeSocket(): void } {
      firstByte = (letter.charCodeAt(0) - 65) << 2
      const socket = new SimulatedSocket(
        (gone) => surroundings.socketClosing(letter, gone),
        (frame) => surroundings.frame?.(letter, frame),
      )
      factory.admit({
        carrier: webSocketCarrier(socket as unknown as DeviceSocket, flowing as unknown as Duplex, jsonCodec, {
          metrics,
          log: silentLog,
        }),
        deviceId,
        accountId: '',
        acknowledges: true,
        credentialEndsAt: Number.POSITIVE_INFINITY,
        credentialEndsAtMax: Number.POSITIVE_INFINITY,
      })
      if (socket.session === undefined) throw new Error('the device was admitted without a session')
      return { session: socket.session, closeSocket: () => void socket.emit('close', 1006) }
    },
    /** One router's frame; resolves with the answers that the edge has at once. */
    async deliver(request: DeepPartial<DeliverRequest>): Promise<DeliverResponse[]> {
      const requests = (async function* () {
        yield DeliverRequest.fromPartial(request)
      })()
      const answers: DeliverResponse[] = []
      for await (const answer of service.deliver(requests, callContext(edgeId))) answers.push(answer as DeliverResponse)
      return answers
    },
    /** A router's stream that stays: tells every answer, also those that come later. */
    stream(answered: (answer: DeliverResponse) => void): (request: DeepPartial<DeliverRequest>) => void {
      const requests = new EventEmitter()
      const arriving = (async function* () {
        for await (const [request] of on(requests, 'request')) yield request as DeliverRequest
      })()
      const read = async () => {
        for await (const answer of service.deliver(arriving, callContext(edgeId))) answered(answer as DeliverResponse)
      }
      void read()
      return (request) => void requests.emit('request', DeliverRequest.fromPartial(request))
    },
    stop: () => wheel.stop(),
  }
}

export type SimulatedEdge = ReturnType<typeof createSimulatedEdge>

/** As much of a WebSocket as an edge uses. */
class SimulatedSocket extends EventEmitter {
  session: DeviceSession | undefined = undefined
  readonly readyState = 1
  readonly #closing: (gone: () => void) => void
  readonly #frame: (frame: string) => void

  constructor(closing: (gone: () => void) => void, frame: (frame: string) => void) {
    super()
    this.#closing = closing
    this.#frame = frame
  }

  send(frame: Buffer): void {
    this.#frame(frame.toString('utf8'))
  }
  ping(): void {}
  close(code: number): void {
    this.#closing(() => this.emit('close', code))
  }
}

/** A connection that takes all that is written. */
/** These runs drain no edge. */
const neverDrained = new Promise<never>(() => {})
const flowing = { writableNeedDrain: false, writableCorked: 1, on() {} }

function unexpected(what: string): never {
  throw new Error(`${what}, which nothing here asks for`)
}

function callContext(edgeId: string) {
  return {
    metadata: Metadata({ [edgeIdMetadata]: edgeId }),
    peer: 'router',
    header: Metadata(),
    sendHeader() {},
    trailer: Metadata(),
    signal: new AbortController().signal,
    abortOnTerminate() {},
  }
}
