import { InboxReadyResult } from '../gen/push/internal/v1/edge.ts'
import { type FlushInboxResponse, FlushResult, FlushStop } from '../gen/push/internal/v1/uplink.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import type { Random } from '../service-kit/random.ts'

/** Most pokes that wait at one session; above it the one that waits longest is let go, and its router asks again. */
export const pokesWaitingMax = 256
/** How long a flush that failed waits before it is repeated: from this … */
export const retryMinMs = 1_000
/** … to this. */
export const retryMaxMs = 30_000
/** A flush that the device's rate has stopped waits for the rate, but at least so long. */
export const refillMinMs = 100
/** A session that has seen mail looks once more after this … */
export const beltMinMs = 5 * 60_000
/** … to this. */
export const beltMaxMs = 10 * 60_000

/** What may happen to the flushes of one session. Times are ms on the monotonic clock. */
export type FlushEvent<Poke> =
  /** The session is open. */
  | { readonly type: 'opened' }
  /** The registry says that messages may wait. */
  | { readonly type: 'mail' }
  | { readonly type: 'poke'; readonly poke: Poke }
  /** The call is made now. */
  | { readonly type: 'called' }
  /** Its turn has come, and the session takes nothing any more. */
  | { readonly type: 'turn lost' }
  /**
   * `room`: the session takes messages now. `unanswered`: what was written to it and is not answered. `refillMs`: until the device may have
   * as many messages again as make a flush worth while.
   */
  | {
      readonly type: 'response'
      readonly response: FlushInboxResponse
      readonly room: boolean
      readonly refillMs: number
      readonly unanswered: ReadonlySet<string>
    }
  /** The call failed, or its stream ended before the flush did. */
  | { readonly type: 'failed' }
  /** The device has answered this message. */
  | { readonly type: 'settled'; readonly messageId: string }
  /** The session takes messages. */
  | { readonly type: 'room' }
  | { readonly type: 'due' }
  | { readonly type: 'session ended' }

/** What is to be done about it. */
export type FlushEffect<Poke> =
  /** Call FlushInbox when it is this session's turn; say 'called' then. */
  | { readonly type: 'call' }
  | { readonly type: 'answer'; readonly pokes: readonly Poke[]; readonly result: InboxReadyResult }
  /** Let go without an answer: too many wait. */
  | { readonly type: 'drop'; readonly poke: Poke }
  /** The look that should find nothing has found so much. */
  | { readonly type: 'belt found'; readonly count: number }

/**
 * idle: no flush is wanted. asked: waits for its turn. calling: the inbox has not been read yet. reading: it has been read, more
 * follows. resting: to be repeated at a set time. full: to be repeated when the session takes messages again.
 */
export type FlushPhase = 'idle' | 'asked' | 'calling' | 'reading' | 'resting' | 'full'

const never = Number.POSITIVE_INFINITY
const nothing: readonly never[] = []

/**
 * When a session flushes its inbox, one flush at a time. A poke is answered once a call that was made after the poke came says that
 * the inbox has been read: what was stored before the poke is then in that flush.
 */
export class Flush<Poke> {
  readonly #random: Random
  readonly #backoff: { next(): number; reset(): void }
  #phase: FlushPhase = 'idle'
  #opened = false
  #ended = false
  /** Before it is open: there is mail. While a call is under way: more mail came after the call was made. */
  #again = false
  #waiting: Poke[] = []
  /** Those that the call under way answers. */
  #covered: Poke[] = []
  #endedAt = 0
  #retryAt = never
  #beltAt = never
  /** The flush is the belt's, and nothing else gave a reason for it. */
  #belt = false
  /** What the device had not answered when the last flush ended. */
  #unanswered: ReadonlySet<string> = new Set()

  constructor(random: Random) {
    this.#random = random
    this.#backoff = createBackoff({ baseMs: retryMinMs, capMs: retryMaxMs - retryMinMs, random })
  }

  get phase(): FlushPhase {
    return this.#phase
  }

  /** When 'due' is to be said. */
  get nextDue(): number {
    return Math.min(this.#retryAt, this.#beltAt)
  }

  handle(event: FlushEvent<Poke>, nowMs: number): readonly FlushEffect<Poke>[] {
    if (this.#ended) return event.type === 'poke' ? [answered([event.poke], InboxReadyResult.NOT_CONNECTED)] : nothing
    switch (event.type) {
      case 'opened':
        if (this.#opened) return nothing
        this.#opened = true
        return this.#again ? this.#ask() : nothing
      case 'mail':
        return this.#mail(nowMs)
      case 'poke':
        this.#waiting.push(event.poke)
        return [...this.#mail(nowMs), ...this.#dropped()]
      case 'called':
        this.#phase = 'calling'
        this.#again = false
        this.#covered = this.#waiting
        this.#waiting = []
        this.#unanswered = new Set()
        return nothing
      case 'turn lost':
        this.#phase = 'idle'
        return nothing
      case 'response':
        return this.#responded(event, nowMs)
      case 'failed':
        return this.#failed(nowMs)
      case 'settled':
        return this.#phase === 'idle' && this.#unanswered.has(event.messageId) ? this.#ask() : nothing
      case 'room':
        return this.#phase === 'full' ? this.#ask() : nothing
      case 'due':
        return this.#due(nowMs)
      case 'session ended': {
        this.#ended = true
        const left = [...this.#covered, ...this.#waiting]
        this.#covered = this.#waiting = []
        this.#retryAt = this.#beltAt = never
        return left.length === 0 ? nothing : [answered(left, InboxReadyResult.NOT_CONNECTED)]
      }
    }
  }

  /** Messages may have been stored just now. */
  #mail(nowMs: number): readonly FlushEffect<Poke>[] {
    this.#armBelt(nowMs)
    this.#belt = false
    switch (this.#phase) {
      case 'idle':
        // Remembered for a session that is still registering.
        if (this.#opened) return this.#ask()
        this.#again = true
        return nothing
      case 'calling':
      case 'reading':
        this.#again = true
        return nothing
      case 'asked':
        return nothing
      case 'resting':
      case 'full':
        // Whoever stored it has a registry that works; but not as often as pokes may come.
        this.#retryAt = Math.min(this.#retryAt, Math.max(nowMs, this.#endedAt + retryMinMs))
        return nothing
    }
  }

  #responded(
    { response, room, refillMs, unanswered }: FlushEvent<Poke> & { type: 'response' },
    nowMs: number,
  ): readonly FlushEffect<Poke>[] {
    if (this.#phase !== 'calling' && this.#phase !== 'reading') return nothing
    switch (response.result) {
      case FlushResult.READING:
        return this.#read()
      case FlushResult.EMPTY:
      case FlushResult.WAITING: {
        const read = this.#read()
        const found: FlushEffect<Poke>[] =
          this.#belt && response.settledCount > 0 ? [{ type: 'belt found', count: response.settledCount }] : []
        if (found.length > 0) this.#armBelt(nowMs)
        this.#backoff.reset()
        if (response.result === FlushResult.WAITING) this.#unanswered = unanswered
        return [...read, ...found, ...this.#done()]
      }
      default:
        return this.#stopped(response.stop, room, refillMs, nowMs)
    }
  }

  #read(): readonly FlushEffect<Poke>[] {
    const read = this.#covered
    this.#covered = []
    this.#phase = 'reading'
    return read.length === 0 ? nothing : [answered(read, InboxReadyResult.ACCEPTED)]
  }

  #stopped(stop: FlushStop, room: boolean, refillMs: number, nowMs: number): readonly FlushEffect<Poke>[] {
    // Not read, and the session is here: what a router believes of it must be old.
    if (stop === FlushStop.NOT_CONNECTED && this.#covered.length === 0) return this.#done()
    if (stop === FlushStop.RATE_LIMITED) {
      this.#backoff.reset()
      this.#rest('resting', nowMs + Math.max(refillMinMs, refillMs), nowMs)
      return nothing
    }
    // With room all the same it was something that only time helps against: the memory of the whole edge, for instance.
    if (stop !== FlushStop.SLOW_CONSUMER || room) return this.#failed(nowMs)
    this.#rest('full', never, nowMs)
    return nothing
  }

  #failed(nowMs: number): readonly FlushEffect<Poke>[] {
    if (this.#phase !== 'calling' && this.#phase !== 'reading') return nothing
    this.#rest('resting', nowMs + retryMinMs + this.#backoff.next(), nowMs)
    return nothing
  }

  #rest(phase: 'resting' | 'full', retryAt: number, nowMs: number): void {
    this.#phase = phase
    this.#waiting = [...this.#covered, ...this.#waiting]
    this.#covered = []
    this.#endedAt = nowMs
    this.#retryAt = phase === 'full' && this.#waiting.length > 0 ? nowMs + retryMinMs : retryAt
  }

  #done(): readonly FlushEffect<Poke>[] {
    this.#phase = 'idle'
    this.#belt = false
    return this.#again ? this.#ask() : nothing
  }

  #ask(): readonly FlushEffect<Poke>[] {
    this.#phase = 'asked'
    this.#retryAt = never
    return [{ type: 'call' }]
  }

  #due(nowMs: number): readonly FlushEffect<Poke>[] {
    if (nowMs >= this.#beltAt) {
      this.#beltAt = never
      if (this.#phase !== 'idle' || !this.#opened) this.#armBelt(nowMs)
      else {
        // Entries that the device has not answered yet are no surprise.
        this.#belt = this.#unanswered.size === 0
        return this.#ask()
      }
    }
    return nowMs >= this.#retryAt ? this.#ask() : nothing
  }

  #armBelt(nowMs: number): void {
    if (this.#beltAt === never) this.#beltAt = nowMs + beltMinMs + this.#random.next() * (beltMaxMs - beltMinMs)
  }

  #dropped(): readonly FlushEffect<Poke>[] {
    if (this.#waiting.length + this.#covered.length <= pokesWaitingMax) return nothing
    const poke = this.#covered.shift() ?? this.#waiting.shift()
    return poke === undefined ? nothing : [{ type: 'drop', poke }]
  }
}

function answered<Poke>(pokes: readonly Poke[], result: InboxReadyResult): FlushEffect<Poke> {
  return { type: 'answer', pokes, result }
}
