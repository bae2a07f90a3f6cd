import type { CloseKind } from './close-codes.ts'
import { closeKinds } from './close-codes.ts'
import type { SessionEvent } from './session.ts'
import type { SessionHost } from './session-host.ts'

/** What has come due, one thing at a time. */
export interface Due {
  readonly event?: SessionEvent
  readonly leave?: { readonly slotMs: number; readonly graceMs: number }
  readonly ping?: true
  /** Nothing was heard after the last ping. */
  readonly suspect?: true
}

const never = Number.POSITIVE_INFINITY

/** Kept longer than any rule keeps a socket: clocks and calls are not exact. */
const rowTtlSpareMs = 60_000

/** All deadlines of one session. Times are ms on the monotonic clock. */
export class SessionClocks {
  readonly #host: SessionHost
  readonly #lifetimeMs: number
  #credentialEndsAt: number
  /** Infinity once it is registered. */
  registerBy: number
  readonly #lifetimeEndsAt: number
  #leaveAt = never
  #forceAt = never
  #forceKind: CloseKind = closeKinds.lifetime
  #finishAt = never
  #pingAt = never
  // On the liveness clock.
  #pongBy = never

  constructor(host: SessionHost, credentialEndsAt: number) {
    const { clock, random, settings } = host
    this.#host = host
    this.#lifetimeMs = settings.lifetimeMs - random.next() * settings.lifetimeJitterMs
    this.#credentialEndsAt = credentialEndsAt
    this.registerBy = clock.monotonic() + settings.registerTimeoutMs
    this.#lifetimeEndsAt = clock.monotonic() + this.#lifetimeMs
  }

  get rowTtlMs(): number {
    const { longestSlotMs, slotGraceMs } = this.#host.settings
    return Math.ceil(this.#lifetimeMs) + longestSlotMs + slotGraceMs + rowTtlSpareMs
  }

  /** Whether a ping is unanswered past its deadline. */
  get silent(): boolean {
    return this.#host.liveness.now() >= this.#pongBy
  }

  /** The same moment in µs since the epoch; undefined when it never comes, or lies beyond what a number holds exactly. */
  get credentialExpireTime(): number | undefined {
    const { clock } = this.#host
    const expireTime = Math.floor(clock.nowMicros() + (this.#credentialEndsAt - clock.monotonic()) * 1_000)
    return Number.isSafeInteger(expireTime) ? expireTime : undefined
  }

  /** A new credential has been shown. */
  credentialRefreshed(endsAt: number): void {
    this.#credentialEndsAt = endsAt
  }

  /** Registered: pings begin, at a random phase so that sessions which came together do not ping together. */
  opened(): void {
    const { clock, random, settings } = this.#host
    this.registerBy = never
    this.#leaveAt = this.#lifetimeEndsAt
    this.#pingAt = clock.monotonic() + random.next() * settings.pingIntervalMs
  }

  heard(): void {
    this.#pongBy = never
  }

  finishing(): void {
    this.#finishAt = this.#host.clock.monotonic() + this.#host.settings.finishMs
  }

  /** Told to leave: closed with `kind` after so long, unless an earlier end is set. */
  leaving(afterMs: number, kind: CloseKind): void {
    this.#leaveAt = never
    const { longestSlotMs, slotGraceMs } = this.#host.settings
    // Leaves that are taken back and come again must not keep the socket longer than its row.
    const forceAt = Math.min(this.#host.clock.monotonic() + afterMs, this.#lifetimeEndsAt + longestSlotMs + slotGraceMs)
    if (forceAt >= this.#forceAt) return
    this.#forceAt = forceAt
    this.#forceKind = kind
  }

  /** The end that `leaving` has set for this kind is taken back. False when another end holds. */
  staying(kind: CloseKind): boolean {
    if (this.#forceAt === never || this.#forceKind !== kind) return false
    this.#forceAt = never
    // Where its lifetime has passed meanwhile, that is told next.
    this.#leaveAt = this.#lifetimeEndsAt
    return true
  }

  due(nowMs: number): Due | undefined {
    const { random, settings, liveness } = this.#host
    if (nowMs >= this.registerBy) return { event: { type: 'registration late' } }
    if (nowMs >= this.#credentialEndsAt) return { event: { type: 'end', kind: closeKinds.credentialExpired } }
    if (nowMs >= this.#forceAt) return { event: { type: 'end', kind: this.#forceKind } }
    if (nowMs >= this.#finishAt) return { event: { type: 'finished' } }
    if (this.silent) return { suspect: true }
    if (nowMs >= this.#leaveAt) {
      return { leave: { slotMs: random.next() * settings.slotMaxMs, graceMs: settings.slotGraceMs } }
    }
    if (nowMs >= this.#pingAt) {
      this.#pingAt = nowMs + settings.pingIntervalMs
      // The first unanswered ping counts: a later one must not grant more time.
      this.#pongBy = Math.min(this.#pongBy, liveness.now() + settings.pongTimeoutMs)
      return { ping: true }
    }
    return undefined
  }

  nextDue(): number {
    const pongBy = this.#pongBy === never ? never : this.#host.liveness.monotonicAt(this.#pongBy)
    return Math.min(this.registerBy, this.#credentialEndsAt, this.#forceAt, this.#finishAt, this.#leaveAt, this.#pingAt, pongBy)
  }
}
