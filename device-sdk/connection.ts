import type { CredentialAcceptedFrame, ErrorFrame, GoawayFrame, MessageFrame, WelcomeFrame } from '../gen/push/v1/device.ts'
import { ACK_IDS_MAX, type Answer, createAnswers } from './answers.ts'
import type { Clock, Timer } from './clock.ts'
import type { FrameCodec } from './codec.ts'
import { type CredentialRefresh, createCredentialRefresh } from './credential.ts'
import type { ClientFrame, ServerFrame } from './frames.ts'
import { type Liveness, watchLiveness } from './liveness.ts'
import type { Random } from './random.ts'
import type { Socket } from './socket.ts'

/** What a connection tells its owner. Nothing more comes after `ended`. */
export interface ConnectionEvents {
  welcome(frame: WelcomeFrame): void
  message(frame: MessageFrame): void
  goaway(frame: GoawayFrame): void
  error(frame: ErrorFrame): void
  /** The edge has accepted a new credential. */
  credentialAccepted(frame: CredentialAcceptedFrame): void
  /** No new token could be had; it is asked for again. */
  tokenFailed(reason: string, message: string): void
  /** The edge sent what is no frame; it was left out. */
  badFrame(reason: string, message: string): void
  /** More answers were owed than may be kept; the oldest was forgotten. */
  answerDropped(): void
  ended(ending: ConnectionEnding): void
}

/** How a connection ended, and the answers that the edge may not have got. */
export interface ConnectionEnding {
  code: number
  reason: string
  answers: Answer[]
}

/** One transport: a socket from its opening to its end. */
export interface Connection {
  /** The edge's first frame, once it is here: only then may anything be sent. */
  readonly welcome: WelcomeFrame | undefined
  /** How long the session has been open; 0 before `welcome`. */
  readonly openMs: number
  readonly alive: boolean
  /** The edge's clock now, in microseconds since the Unix epoch; undefined before `welcome`. */
  serverTime(): number | undefined
  /**
   * Owes an answer. After a pause it goes out at the end of this turn of the event loop; else `answerIntervalMs` after the ones before it,
   * with all others owed by then: an acknowledgement of its own costs the edge as much as the message did.
   */
  answer(answer: Answer): void
  /** Sends what is owed, then closes. `ended` follows: when the edge has answered, or after `closeTimeoutMs`. */
  close(reason: string): void
}

export interface ConnectionOptions {
  /** Opens the socket. */
  dial: () => Socket
  codec: FrameCodec
  clock: Clock
  random: Random
  /** Asks for a new credential before the session's own expires; undefined when the app has only the one. */
  token: (() => Promise<string>) | undefined
  credentialAheadMs: number
  credentialRetryMs: number
  /** From opening to `welcome`. */
  welcomeTimeoutMs: number
  /** From our close to the edge's. */
  closeTimeoutMs: number
  answerIntervalMs: number
  owedAnswersMax: number
  events: ConnectionEvents
}

/** What a WebSocket reports when it ended without a close frame. */
export const ABNORMAL_CLOSE = 1006

const normalClose = 1000
const pingIntervalMinMs = 1_000

/** Opens a connection. Whatever goes wrong, also at once, is told by `ended`, and not before this has returned. */
export function openConnection(options: ConnectionOptions): Connection {
  const { clock, events } = options
  const answers = createAnswers(options.owedAnswersMax)
  let state: 'connecting' | 'open' | 'closing' | 'ended' = 'connecting'
  let welcome: WelcomeFrame | undefined
  let welcomeAt = 0
  let liveness: Liveness | undefined
  let credential: CredentialRefresh | undefined
  /** The new credential that was sent last. */
  let unjudged: string | undefined
  let flushPlanned = false
  let flushedAt = Number.NEGATIVE_INFINITY
  let flushTimer: Timer | undefined
  let socket: Socket | undefined
  let timer: Timer | undefined = clock.after(options.welcomeTimeoutMs, () => detach('no welcome in time'))

  function end(code: number, reason: string): void {
    if (state === 'ended') return
    // An edge that answers our close has read all that went before it.
    if (state === 'closing' && code !== ABNORMAL_CLOSE) answers.heard()
    state = 'ended'
    timer?.cancel()
    flushTimer?.cancel()
    liveness?.stop()
    credential?.stop()
    events.ended({ code, reason, answers: answers.takeUnproven() })
  }

  /** Lets go of a transport that no longer answers: whatever it still brings is nobody's any more. */
  function detach(reason: string): void {
    end(ABNORMAL_CLOSE, reason)
    closeSocket(reason)
  }

  function closeSocket(reason: string): void {
    try {
      socket?.close(normalClose, reason)
    } catch {
      // A socket that refuses to be closed is let go of all the same.
    }
  }

  function send(frame: ClientFrame): void {
    // Beside a stream that only brings, a ping would ask nobody.
    if (socket?.apart !== undefined && (frame.type === 'ping' || frame.type === 'pong')) return
    try {
      socket?.send(options.codec.encode(frame))
    } catch (error) {
      detach(`cannot send: ${error instanceof Error ? error.message : String(error)}`)
    }
  }

  function flush(): void {
    flushPlanned = false
    flushTimer?.cancel()
    if (state !== 'open') return
    flushedAt = clock.monotonic()
    for (const frame of answers.takeFrames(welcome?.limits?.ack_ids || ACK_IDS_MAX)) send(frame)
  }

  function receive(data: unknown): void {
    if (state === 'ended') return
    liveness?.heard()
    if (socket?.apart === undefined) answers.heard()
    const parsed = options.codec.parse(data)
    if (parsed.ok) take(parsed.frame)
    else events.badFrame(parsed.reason, parsed.message)
  }

  function take(frame: ServerFrame): void {
    switch (frame.type) {
      case 'welcome':
        if (state === 'connecting') open(frame)
        else if (state === 'open') events.badFrame('INVALID_FRAME', 'a second welcome')
        return
      case 'message':
        if (state === 'connecting') events.badFrame('INVALID_FRAME', 'a message before welcome')
        else events.message(frame)
        return
      case 'goaway':
        events.goaway(frame)
        return
      case 'error':
        credential?.refused(frame.reason)
        events.error(frame)
        return
      case 'ping':
        if (state === 'open') send({ type: 'pong', ...(frame.data === undefined ? {} : { data: frame.data }) })
        return
      case 'pong':
      case 'close': // an event stream's own; it ends after it
        return
      case 'credential_accepted':
        if (state !== 'open') return
        if (unjudged !== undefined) socket?.apart?.show(unjudged)
        credential?.expires(frame.expire_time, serverTime() ?? 0)
        events.credentialAccepted(frame)
        return
    }
  }

  function open(frame: WelcomeFrame): void {
    state = 'open'
    welcome = frame
    welcomeAt = clock.monotonic()
    timer?.cancel()
    timer = undefined
    liveness = watchLiveness({
      clock,
      intervalMs: Math.max(pingIntervalMinMs, frame.ping_interval_ms),
      probe: () => send({ type: 'ping' }),
      dead: () => detach('nothing heard for twice the ping interval'),
    })
    watchCredential(frame)
    events.welcome(frame)
  }

  function watchCredential(frame: WelcomeFrame): void {
    const { token, random, credentialAheadMs: aheadMs, credentialRetryMs: retryMs } = options
    if (token === undefined || frame.credential_expire_time === undefined) return
    const shown = (text: string) => {
      unjudged = text
      send({ type: 'credential', token: text })
    }
    credential = createCredentialRefresh({ token, send: shown, clock, random, aheadMs, retryMs, problem: events.tokenFailed })
    credential.expires(frame.credential_expire_time, frame.server_time)
  }

  // By the monotonic clock: the device's own may be set while the session lasts.
  function serverTime(): number | undefined {
    return welcome && welcome.server_time + Math.floor((clock.monotonic() - welcomeAt) * 1_000)
  }

  try {
    socket = options.dial()
    if (socket.apart !== undefined) socket.apart.onSent = () => answers.heard()
    socket.addEventListener('message', (event) => receive(event.data))
    socket.addEventListener('close', (event) => end(event.code, event.reason))
    // A close event follows, and says all that a page may know.
    socket.addEventListener('error', () => {})
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    queueMicrotask(() => end(ABNORMAL_CLOSE, reason))
  }

  return {
    get welcome() {
      return welcome
    },
    get openMs() {
      return welcome === undefined ? 0 : clock.monotonic() - welcomeAt
    },
    get alive() {
      return state === 'open'
    },
    serverTime,
    answer(answer) {
      if (!answers.owe(answer)) events.answerDropped()
      if (flushPlanned) return
      flushPlanned = true
      const waitMs = flushedAt + options.answerIntervalMs - clock.monotonic()
      if (waitMs > 0) flushTimer = clock.after(waitMs, flush)
      else queueMicrotask(flush)
    },
    close(reason) {
      if (state === 'closing' || state === 'ended') return
      flush()
      // Sending may have shown that the socket is gone.
      if (!isEnded()) {
        state = 'closing'
        timer?.cancel()
        timer = clock.after(options.closeTimeoutMs, () => detach('the edge did not close'))
        liveness?.stop()
        credential?.stop()
        closeSocket(reason)
      }
    },
  }

  function isEnded(): boolean {
    return state === 'ended'
  }
}
