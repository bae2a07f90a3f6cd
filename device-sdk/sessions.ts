import type { ErrorFrame, GoawayFrame, MessageFrame, WelcomeFrame } from '../gen/push/v1/device.ts'
import { type Answer, createAnswers } from './answers.ts'
import type { Clock, Timer } from './clock.ts'
import { ABNORMAL_CLOSE, type Connection, type ConnectionEnding, openConnection } from './connection.ts'
import type { Dialer } from './dialer.ts'
import type { Random } from './random.ts'
import { type Ending, isFinalClose, type ReconnectPolicy } from './reconnect.ts'

/** What the sessions tell the device. */
export interface SessionsEvents {
  welcome(frame: WelcomeFrame): void
  message(frame: MessageFrame): void
  goaway(frame: GoawayFrame): void
  /** A new credential has been accepted; undefined: it does not expire. In microseconds since the Unix epoch. */
  credential(expireTime: number | undefined): void
  /** The device has no session; the next attempt comes after `retryInMs`. */
  disconnected(event: { code: number; reason: string; retryInMs: number }): void
  /** The server said that coming back is of no use. Nothing is tried any more. */
  stopped(event: { code: number; reason: string }): void
  /** Something that goes on all the same, for the app's developer to read. */
  problem(reason: string, message: string): void
}

export interface SessionsOptions {
  readonly url: string
  readonly token: () => string | Promise<string>
  /** Another call of `token` may give another token. */
  readonly tokenChanges: boolean
  readonly takesAnswers: boolean
  readonly dialer: Dialer
  readonly clock: Clock
  readonly random: Random
  readonly policy: ReconnectPolicy
  readonly bounds: SessionsBounds
  readonly events: SessionsEvents
}

export interface SessionsBounds {
  readonly tokenTimeoutMs: number
  readonly credentialAheadMs: number
  readonly credentialRetryMs: number
  readonly welcomeTimeoutMs: number
  readonly closeTimeoutMs: number
  readonly lingerMs: number
  readonly answerIntervalMs: number
  readonly owedAnswersMax: number
}

/** The device's sessions over time: one is open, and for a while the one before it or the one after it as well. */
export interface Sessions {
  readonly state: 'connecting' | 'open' | 'waiting' | 'ended'
  /** The edge's clock, in microseconds since the Unix epoch; undefined until a session has been open. */
  serverTime(): number | undefined
  /** Sends the answer on the session that brought the message, or the next best; owes it while there is none. */
  answer(answer: Answer): void
  /** No answer will come for this delivery of the message. */
  release(id: string): void
  /** Sends what is owed and ends all sessions. Resolves when they have ended. */
  close(reason: string): Promise<void>
}

/** How long after its end an attempt may still be registered by its edge, and take the place of an older or a newer session. */
const strayMs = 10_000

/** One session and what it still waits for. */
interface Stay {
  readonly connection: Connection
  readonly unanswered: Set<string>
  /** When the slot that goaway gave begins, by the monotonic clock. */
  slotAt: number | undefined
}

export function openSessions(options: SessionsOptions): Sessions {
  const { clock, events, policy, bounds } = options
  const waiting = createAnswers(bounds.owedAnswersMax)
  const stays = new Set<Stay>()
  let current: Stay | undefined
  let next: Stay | undefined
  let leaving: Stay | undefined
  /** Names the attempt that waits for its token, so that one that was given up is not taken further. */
  let dialing: object | undefined
  let retryTimer: Timer | undefined
  let slotTimer: Timer | undefined
  let lingerTimer: Timer | undefined
  let elsewhere: string | undefined
  let lastError: ErrorFrame | undefined
  // By the monotonic clock: until then a session of ours may be told that it is superseded, and by nobody else than us.
  let strayUntil = Number.NEGATIVE_INFINITY
  let over = false
  /** Tells the time also while no session is open. */
  let timekeeper: Connection | undefined
  const allEnded = Promise.withResolvers<void>()

  const token = () => inTime(options.token, bounds.tokenTimeoutMs, clock)

  function retryIn(delayMs: number): void {
    retryTimer?.cancel()
    retryTimer = clock.after(delayMs, () => {
      retryTimer = undefined
      void connect()
    })
  }

  async function connect(): Promise<void> {
    const attempt = {}
    dialing = attempt
    let shown: string
    try {
      shown = await token()
    } catch (error) {
      if (dialing !== attempt) return
      dialing = undefined
      const reason = `no token: ${error instanceof Error ? error.message : String(error)}`
      comeBackAfter({ code: ABNORMAL_CLOSE, reason, openMs: 0, slotAt: undefined, ownAttempt: false })
      return
    }
    if (dialing !== attempt) return
    dialing = undefined
    const url = urlOf(elsewhere ?? options.url)
    elsewhere = undefined
    next = open(url, shown)
  }

  function urlOf(address: string): string {
    if (options.takesAnswers) return address
    const url = new URL(address)
    url.searchParams.set('acks', 'none')
    return url.href
  }

  function open(url: string, shown: string): Stay {
    const { dialer } = options
    const connection = openConnection({
      dial: () => dialer.dial(url, shown),
      codec: dialer.codec,
      clock,
      random: options.random,
      token: options.tokenChanges ? token : undefined,
      ...bounds,
      events: {
        welcome: (frame) => welcomed(stay, frame),
        message(frame) {
          for (const other of stays) other.unanswered.delete(frame.id)
          if (options.takesAnswers) stay.unanswered.add(frame.id)
          events.message(frame)
        },
        goaway: (frame) => toldToLeave(stay, frame),
        error(frame) {
          lastError = frame
          events.problem(frame.reason, frame.message)
        },
        credentialAccepted: (frame) => events.credential(frame.expire_time),
        tokenFailed: events.problem,
        badFrame: (reason, message) => events.problem(reason, message),
        answerDropped: () => events.problem('ANSWER_DROPPED', 'too many answers are owed; the oldest was forgotten'),
        ended: (ending) => ended(stay, ending),
      },
    })
    const stay: Stay = { connection, unanswered: new Set(), slotAt: undefined }
    stays.add(stay)
    return stay
  }

  function welcomed(stay: Stay, frame: WelcomeFrame): void {
    lastError = undefined
    slotTimer?.cancel()
    next = undefined
    const before = current
    current = stay
    timekeeper = stay.connection
    for (const answer of waiting.takeUnproven()) stay.connection.answer(answer)
    if (before !== undefined) leave(before)
    events.welcome(frame)
  }

  /** Make before break: the newer session is open. Handlers that still work for the older one may answer there for a moment. */
  function leave(stay: Stay): void {
    if (leaving !== undefined) finishLeaving()
    leaving = stay
    lingerTimer = clock.after(bounds.lingerMs, finishLeaving)
    if (stay.unanswered.size === 0) finishLeaving()
  }

  function finishLeaving(): void {
    lingerTimer?.cancel()
    const stay = leaving
    leaving = undefined
    stay?.connection.close('moved to a newer session')
  }

  function toldToLeave(stay: Stay, frame: GoawayFrame): void {
    if (over || stay === leaving) return
    stay.slotAt = clock.monotonic() + frame.reconnect_after_ms
    elsewhere = frame.endpoint === undefined ? undefined : acceptable(frame.endpoint)
    if (stay === current) {
      slotTimer?.cancel()
      slotTimer = clock.after(frame.reconnect_after_ms, () => {
        if (dialing === undefined && next === undefined && retryTimer === undefined) void connect()
      })
    }
    events.goaway(frame)
  }

  /** The token goes wherever the device connects: never over plain text when the app asked for TLS. */
  function acceptable(endpoint: string): string | undefined {
    const scheme = URL.canParse(endpoint) ? new URL(endpoint).protocol : ''
    const [secure, plain] = options.dialer.schemes
    if (scheme === secure || (scheme === plain && new URL(options.url).protocol === plain)) return endpoint
    events.problem('ENDPOINT_REFUSED', `goaway names an endpoint that this device does not go to: ${endpoint.slice(0, 200)}`)
    return undefined
  }

  function ended(stay: Stay, ending: ConnectionEnding): void {
    stays.delete(stay)
    for (const answer of ending.answers) answerAnywhere(answer)
    const role = stay === current ? 'current' : stay === next ? 'next' : 'leaving'
    if (stay === current) {
      current = undefined
      slotTimer?.cancel()
    }
    if (stay === next) next = undefined
    const ownAttempt = clock.monotonic() < strayUntil
    if (role === 'next') strayUntil = clock.monotonic() + strayMs
    if (stay === leaving) {
      leaving = undefined
      lingerTimer?.cancel()
    }
    if (over && stays.size === 0) allEnded.resolve()
    if (over || role === 'leaving') return
    const { code, reason } = ending
    if (isFinalClose(code)) {
      const words = reason || lastError?.message || 'the server refuses this device'
      void close('stopped')
      events.stopped({ code, reason: words })
    } else if (role === 'current' && (dialing !== undefined || next !== undefined)) {
      // The newer session is on its way: that may be the very reason why this one ended.
      events.disconnected({ code, reason, retryInMs: 0 })
    } else {
      comeBackAfter({ code, reason, openMs: stay.connection.openMs, slotAt: stay.slotAt, ownAttempt })
    }
  }

  function comeBackAfter(ending: Omit<Ending, 'slotInMs'> & { reason: string; slotAt: number | undefined }): void {
    const { code, reason, openMs, slotAt, ownAttempt } = ending
    const slotInMs = slotAt === undefined ? undefined : slotAt - clock.monotonic()
    const retryInMs = policy.after({ code, openMs, slotInMs, ownAttempt })
    retryIn(retryInMs)
    if (current === undefined) events.disconnected({ code, reason, retryInMs })
    else events.problem('RECONNECT_FAILED', `the newer session did not open (${code} ${reason}); the older one goes on`)
  }

  function answerAnywhere(answer: Answer): void {
    if (current?.connection.alive) current.connection.answer(answer)
    else if (!waiting.owe(answer)) events.problem('ANSWER_DROPPED', 'too many answers are owed; the oldest was forgotten')
  }

  async function close(reason: string): Promise<void> {
    over = true
    dialing = undefined
    retryTimer?.cancel()
    slotTimer?.cancel()
    for (const stay of stays) stay.connection.close(reason)
    if (stays.size > 0) await allEnded.promise
  }

  void connect()
  return {
    get state() {
      if (over) return 'ended'
      if (current !== undefined) return 'open'
      return next !== undefined || dialing !== undefined ? 'connecting' : 'waiting'
    },
    serverTime: () => timekeeper?.serverTime(),
    answer(answer) {
      const origin = [...stays].find((stay) => stay.unanswered.delete(answer.id) && stay.connection.alive)
      if (origin === undefined) answerAnywhere(answer)
      else origin.connection.answer(answer)
      if (leaving !== undefined && leaving.unanswered.size === 0) finishLeaving()
    },
    release(id) {
      for (const stay of stays) stay.unanswered.delete(id)
      if (leaving !== undefined && leaving.unanswered.size === 0) finishLeaving()
    },
    close,
  }
}

async function inTime(call: () => string | Promise<string>, timeoutMs: number, clock: Clock): Promise<string> {
  let timer: Timer | undefined
  const late = new Promise<never>((_, reject) => {
    timer = clock.after(timeoutMs, () => reject(new Error(`none came within ${timeoutMs} ms`)))
  })
  try {
    return await Promise.race([(async () => call())(), late])
  } finally {
    timer?.cancel()
  }
}
