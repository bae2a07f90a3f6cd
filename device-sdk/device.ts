import type { Fetch } from './answer-posts.ts'
import { type Clock, systemClock } from './clock.ts'
import { type Dialer, eventStreamDialer, webSocketDialer } from './dialer.ts'
import { createEmitter } from './emitter.ts'
import { createHandlers, type Handled, type HandlersByClass } from './handlers.ts'
import { type Random, systemRandom } from './random.ts'
import { type BackoffBounds, createReconnectPolicy, defaultBackoff } from './reconnect.ts'
import { createSeen, type SeenStore } from './seen.ts'
import { openSessions, type Sessions } from './sessions.ts'
import { type OpenSocket, openGlobalSocket } from './socket.ts'

/** How a device connects and what it does with messages. Only the first three are needed. */
export interface DeviceOptions {
  /** `wss://…/v1/connect`, or `https://…/v1/events` with `transport: 'sse'`; plain `ws:` and `http:` on loopback. */
  readonly url: string
  /**
   * The credential: a JWT, or `dev:<device>` / `dev:<device>/<account>` in a development set-up. A function is asked before each attempt to
   * connect, and again before the credential of an open session expires, so that the session goes on. It must then name the same device and
   * account: to log in to another account, close the device and connect anew.
   */
  readonly token: string | (() => string | Promise<string>)
  /** Handles the messages; see `Handler`. */
  readonly onMessage: HandlersByClass
  /**
   * `sse`: messages come by an event stream, answers go by requests beside it. For where a proxy lets no WebSocket through. Behind a balancer it wants
   * one address to reach one edge: answers that reach another one count late. Default `websocket`.
   */
  readonly transport?: 'websocket' | 'sse'
  /** The form of the frames. `protobuf` is smaller, above all for payloads that are not JSON; event streams carry JSON only. Default `json`. */
  readonly protocol?: 'json' | 'protobuf'
  /** `none`: this device never answers, and a publisher learns no more than that a message was written. Default: it answers. */
  readonly acks?: 'none'
  /** Remembers recovery commands over restarts of the process. Default: they are remembered as long as the process lives. */
  readonly seenStore?: SeenStore
  readonly backoff?: Partial<BackoffBounds>
  readonly bounds?: Partial<DeviceBounds>
  readonly openSocket?: OpenSocket
  /** For event streams. Default: that of the browser or of Node. */
  readonly fetch?: Fetch
  readonly clock?: Clock
  readonly random?: Random
}

/** Every wait and every memory of a device. */
export interface DeviceBounds {
  /** For `token` to come. Then the attempt has failed. Default 30,000. */
  readonly tokenTimeoutMs: number
  /** How long before its credential expires an open session is given a new one, at least; a quarter of the whole where that is shorter. Default 60,000. */
  readonly credentialAheadMs: number
  /** From one attempt to have a new credential accepted to the next. Edges take one every 10 s. Default 15,000. */
  readonly credentialRetryMs: number
  /** From opening a connection to `welcome`. Then the attempt has failed. Default 15,000. */
  readonly welcomeTimeoutMs: number
  /** For the edge to answer our close. Then the connection is let go. Default 1,000. */
  readonly closeTimeoutMs: number
  /** After a newer session has opened: for handlers to answer on the older one. Then their answers go over the newer one. Default 5,000. */
  readonly lingerMs: number
  /** Least time between two frames with answers, so that several go in one. The first after a pause goes at once. Default 10. */
  readonly answerIntervalMs: number
  /** Answers kept while there is no session. Above it the oldest is forgotten: its message comes again. Default 1,024. */
  readonly owedAnswersMax: number
  /** Ids remembered so that repeats are not handled again. Above it the oldest are forgotten. Default 10,000. */
  readonly seenMax: number
  /** Bytes of results remembered for repeats. Above it the oldest are forgotten: their messages are then only acknowledged. Default 1 MiB. */
  readonly resultBytesMax: number
  /** Messages of one class that wait for their handler. Above it a message is left unanswered: it comes again. Default 256. */
  readonly queuedMax: number
  /** For one answer of `seenStore`. Then the command runs without it. Default 2,000. */
  readonly seenStoreTimeoutMs: number
}

export const defaultBounds: DeviceBounds = {
  tokenTimeoutMs: 30_000,
  credentialAheadMs: 60_000,
  credentialRetryMs: 15_000,
  welcomeTimeoutMs: 15_000,
  closeTimeoutMs: 1_000,
  lingerMs: 5_000,
  answerIntervalMs: 10,
  owedAnswersMax: 1_024,
  seenMax: 10_000,
  resultBytesMax: 1024 * 1024,
  queuedMax: 256,
  seenStoreTimeoutMs: 2_000,
}

/** What a device tells those who listen. */
export interface DeviceEvents {
  /** A session is open. Times in microseconds since the Unix epoch; a credential without one does not expire. */
  welcome: { sessionId: string; deviceId: string; serverTime: number; credentialExpireTime?: number }
  /** The open session goes on with a new credential, until then; without a time it does not expire. */
  credential: { expireTime?: number }
  /** A message came, and this became of it here. */
  message: { id: string; outcome: Handled }
  /** The session will end; the device moves to another one when its slot begins. */
  goaway: { reason: string; reconnectAfterMs: number }
  /** There is no session. The next attempt comes after `retryInMs`. Code 1006: the connection broke, or never came about. */
  disconnected: { code: number; reason: string; retryInMs: number }
  /** The server refuses this device until something changes; nothing is tried any more. */
  stopped: { code: number; reason: string }
  /** Something is not as it should be, and the device goes on all the same. */
  problem: { reason: string; message: string }
}

/** `open`: a session is there. `waiting`: for the next attempt. `stopped`: by the server. `closed`: by the app. */
export type DeviceState = 'connecting' | 'open' | 'waiting' | 'stopped' | 'closed'

/** How often things have happened since the device was created. */
export type DeviceCounts = Record<Handled | 'sessions' | 'problems', number>

export interface Device {
  readonly state: DeviceState
  readonly counts: Readonly<DeviceCounts>
  /** Calls `listener` at each such event until the returned function is called. */
  on<Name extends keyof DeviceEvents>(name: Name, listener: (event: DeviceEvents[Name]) => void): () => void
  /**
   * Takes no more messages, lets running handlers return and answer for up to `graceMs` (default 2,000), and ends the session. What has
   * not started by then comes again at the next connect. Safe to repeat.
   */
  close(options?: { graceMs?: number }): Promise<void>
}

/** Connects a device and keeps it connected until `close`, or until the server refuses it. Throws when `url` is no address that it can dial. */
export function connectDevice(options: DeviceOptions): Device {
  const clock = options.clock ?? systemClock
  const random = options.random ?? systemRandom
  const bounds = { ...defaultBounds, ...options.bounds }
  const { token } = options
  const dialer = dialerFor(options, clock)
  checkUrl(options.url, dialer)

  const emitter = createEmitter<DeviceEvents>()
  const counts: DeviceCounts = { handled: 0, refused: 0, expired: 0, repeated: 0, overflowed: 0, sessions: 0, problems: 0 }
  let ending: 'stopped' | 'closed' | undefined
  let closing: Promise<void> | undefined

  const handlers = createHandlers({
    handlers: options.onMessage,
    seen: createSeen(bounds.seenMax, bounds.resultBytesMax),
    seenStore: options.seenStore,
    seenStoreTimeoutMs: bounds.seenStoreTimeoutMs,
    clock,
    queuedMax: bounds.queuedMax,
    isExpired(expireTime) {
      const serverTime = sessions.serverTime()
      return serverTime !== undefined && serverTime > expireTime
    },
    onAnswer(answer) {
      if (options.acks !== 'none') sessions.answer(answer)
    },
    onHandled(outcome, id) {
      counts[outcome] += 1
      if (outcome === 'overflowed') sessions.release(id)
      emitter.emit('message', { id, outcome })
    },
    onStoreFailure: (message) => problem('SEEN_STORE_FAILED', message),
  })

  const sessions: Sessions = openSessions({
    url: options.url,
    token: typeof token === 'string' ? () => token : token,
    tokenChanges: typeof token !== 'string',
    takesAnswers: options.acks !== 'none',
    dialer,
    clock,
    random,
    policy: createReconnectPolicy(random, { ...defaultBackoff, ...options.backoff }),
    bounds,
    events: {
      welcome(frame) {
        counts.sessions += 1
        emitter.emit('welcome', {
          sessionId: frame.session_id,
          deviceId: frame.device_id,
          serverTime: frame.server_time,
          ...(frame.credential_expire_time !== undefined && { credentialExpireTime: frame.credential_expire_time }),
        })
      },
      message: (frame) => handlers.receive(frame),
      goaway: (frame) => emitter.emit('goaway', { reason: frame.reason, reconnectAfterMs: frame.reconnect_after_ms }),
      credential: (expireTime) => emitter.emit('credential', expireTime === undefined ? {} : { expireTime }),
      disconnected: (event) => emitter.emit('disconnected', event),
      stopped(event) {
        ending ??= 'stopped'
        void handlers.stop()
        emitter.emit('stopped', event)
      },
      problem,
    },
  })

  function problem(reason: string, message: string): void {
    counts.problems += 1
    emitter.emit('problem', { reason, message })
  }

  async function close(graceMs: number): Promise<void> {
    ending = 'closed'
    const grace = Promise.withResolvers<void>()
    const timer = clock.after(graceMs, grace.resolve)
    await Promise.race([handlers.stop(), grace.promise])
    timer.cancel()
    await sessions.close('the device closes')
  }

  return {
    get state() {
      if (ending !== undefined) return ending
      return sessions.state === 'ended' ? 'stopped' : sessions.state
    },
    counts,
    on: emitter.on,
    close(closeOptions) {
      closing ??= close(closeOptions?.graceMs ?? 2_000)
      return closing
    },
  }
}

function dialerFor(options: DeviceOptions, clock: Clock): Dialer {
  const { transport = 'websocket', protocol = 'json' } = options
  if (transport === 'websocket') return webSocketDialer(options.openSocket ?? openGlobalSocket, protocol)
  if (protocol !== 'json') throw new TypeError('an event stream carries JSON only')
  return eventStreamDialer({ fetch: options.fetch ?? globalThis.fetch, clock, random: options.random ?? systemRandom })
}

function checkUrl(url: string, { schemes }: Dialer): void {
  const scheme = URL.canParse(url) ? new URL(url).protocol : ''
  if (schemes.includes(scheme)) return
  throw new TypeError(`${url} is no address to connect to; expected ${schemes.map((name) => `${name}//`).join(' or ')}`)
}
