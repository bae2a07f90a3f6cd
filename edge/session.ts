import { CloseSessionResult } from '../gen/push/internal/v1/edge.ts'
import type { SessionRow } from '../gen/push/internal/v1/registry.ts'
import type { CloseKind } from './close-codes.ts'
import { closeKinds } from './close-codes.ts'

/**
 * registering: installed here, its row not yet confirmed; nothing may be written. open: after `welcome`. leaving: told to go, by
 * goaway or because it is being closed; messages and answers go on. closed: over; the socket may still be closing.
 */
export type SessionState = 'registering' | 'open' | 'leaving' | 'closed'

/** What orders the sessions of a device: the epoch alone may tie. */
export interface SessionOrder {
  readonly epoch: number
  readonly sessionId: string
}

/** What may happen to a session. */
export type SessionEvent =
  /** The registry's answer. `inboxUntil` is set when messages may wait, `takeovers` when sessions of this device have replaced each other of late. `attempts` counts calls that may have left a row. No call is under way any more. */
  | {
      readonly type: 'registered'
      readonly epoch: number
      readonly attempts: number
      readonly replaced: readonly SessionRow[]
      readonly inboxUntil?: number
      readonly takeovers?: number
    }
  | { readonly type: 'superseded'; readonly attempts: number }
  | { readonly type: 'registration failed'; readonly attempts: number }
  /** The row of an open session has gone: it registers again, and one of the three above follows. */
  | { readonly type: 'registering again' }
  /** The time for registering is over; calls may still be under way. */
  | { readonly type: 'registration late' }
  /** Another session is said to have taken the place of this one. */
  | { readonly type: 'replaced'; readonly replacer: SessionOrder }
  | { readonly type: 'disconnect'; readonly detail: string }
  /** The device shall leave in its slot. */
  | { readonly type: 'leave'; readonly reason: string; readonly slotMs: number }
  /** It may stay after all, unless it is being closed. */
  | { readonly type: 'stay' }
  /** It must go now. */
  | { readonly type: 'end'; readonly kind: CloseKind; readonly detail?: string }
  /** What a leaving session still had to do is done, or its time is over. */
  | { readonly type: 'finished' }
  | { readonly type: 'socket closed' }

/** What is to be done about it, in this order. */
export type SessionEffect =
  /** Tell the device that the session is open, then write what waits. */
  | { readonly type: 'welcome' }
  /** Messages may wait in the device's inbox. */
  | { readonly type: 'mail' }
  | { readonly type: 'goaway'; readonly reason: string; readonly slotMs: number }
  /** Take nothing new, let outbox and pending answers finish for a while, then say 'finished'. */
  | { readonly type: 'finish' }
  | { readonly type: 'close socket'; readonly kind: CloseKind; readonly detail: string }
  /** Nothing will be written any more: what waits is given back. */
  | { readonly type: 'give back' }
  /** Remove this session's rows: the one with this epoch, or with 0 all of them. */
  | { readonly type: 'unregister'; readonly epoch: number }
  /** The sessions in these rows must be told that this one has taken their place. */
  | { readonly type: 'tell replaced'; readonly rows: readonly SessionRow[]; readonly replacer: SessionOrder }
  /** The device changes between sessions so often that two must be using its identity. `takeovers` in the last minutes. */
  | { readonly type: 'duplicate identity'; readonly takeovers: number }
  /** What to answer to who asked for the close. */
  | { readonly type: 'answer close'; readonly result: CloseSessionResult }

/** What decides how a session is told that it was replaced; may change meanwhile. */
export interface TakeoverRules {
  /** More changes than these within `takeoverWindowMicros`, and the device counts as two. */
  readonly takeoversMax: number
}

/** A session that is replaced when younger than this counts as a change; as the registry counts. */
export const takeoverWindowMicros = 600_000_000

/** The life of one device's stay, without socket, clock or registry: events in, effects out. */
export class Session {
  readonly sessionId: string
  readonly #rules: TakeoverRules
  #state: SessionState = 'registering'
  #epoch = 0
  #finishing: { readonly kind: CloseKind; readonly detail: string } | undefined
  // The highest of those said to replace this session while its own epoch was not known.
  #replacer: SessionOrder | undefined
  // Changes of sessions of its device by when it registered.
  #takeovers = 0
  // Calls that may have left rows, and whether one may be under way.
  #attempts = 0
  #calling = true

  constructor(sessionId: string, rules: TakeoverRules) {
    this.sessionId = sessionId
    this.#rules = rules
  }

  get state(): SessionState {
    return this.#state
  }

  /** 0 until it is known. */
  get epoch(): number {
    return this.#epoch
  }

  get order(): SessionOrder {
    return { epoch: this.#epoch, sessionId: this.sessionId }
  }

  /** Whether messages may be written: after `welcome`, until the end. */
  get writes(): boolean {
    return this.#state === 'open' || this.#state === 'leaving'
  }

  /** Whether it takes deliveries: from the start on, until it is being closed. */
  get accepts(): boolean {
    return this.#state !== 'closed' && this.#finishing === undefined
  }

  handle(event: SessionEvent): SessionEffect[] {
    switch (event.type) {
      case 'registered':
        return this.#registered(event)
      case 'superseded':
        return this.#notRegistered(event.attempts, closeKinds.superseded)
      case 'registration failed':
        return this.#notRegistered(event.attempts, closeKinds.tryAgainLater)
      case 'registering again':
        this.#calling = true
        return []
      case 'registration late':
        return this.#state === 'registering' ? this.#end(closeKinds.tryAgainLater) : []
      case 'replaced':
        return this.#replaced(event.replacer)
      case 'disconnect':
        return [...this.#finish(closeKinds.disconnected, event.detail), answer(CloseSessionResult.CLOSED)]
      case 'leave':
        return this.#leave(event.reason, event.slotMs)
      case 'stay':
        if (this.#state === 'leaving' && this.#finishing === undefined) this.#state = 'open'
        return []
      case 'end':
        return this.#state === 'closed' ? [] : this.#end(event.kind, event.detail)
      case 'finished':
        return this.#finishing === undefined || this.#state === 'closed'
          ? []
          : this.#end(this.#finishing.kind, this.#finishing.detail)
      case 'socket closed':
        return this.#state === 'closed' ? [] : this.#closed()
    }
  }

  #registered(event: SessionEvent & { type: 'registered' }): SessionEffect[] {
    const { epoch, attempts, replaced, inboxUntil = 0, takeovers = 0 } = event
    this.#epoch = epoch
    this.#takeovers = takeovers
    this.#called(attempts)
    // Also when this session has ended meanwhile: the older ones were replaced all the same, and nobody else may know it.
    const told: SessionEffect[] = replaced.length === 0 ? [] : [{ type: 'tell replaced', rows: replaced, replacer: this.order }]
    if (this.#state === 'closed') return [...told, ...this.#removeRows()]
    if (this.#replacer !== undefined && isLower(this.order, this.#replacer)) {
      const { kind, report } = this.#supersededBy(this.#replacer)
      return [...told, ...report, ...this.#end(kind)]
    }
    const mail: SessionEffect[] = inboxUntil > 0 ? [{ type: 'mail' }] : []
    if (this.#state !== 'registering') return [...told, ...mail]
    this.#state = 'open'
    return [...mail, { type: 'welcome' }, ...told]
  }

  #notRegistered(attempts: number, kind: CloseKind): SessionEffect[] {
    this.#called(attempts)
    if (this.#state === 'closed') return this.#removeRows()
    // One that is open already stays so until it is known that another has its place.
    return this.#state === 'registering' || kind === closeKinds.superseded ? this.#end(kind) : []
  }

  #called(attempts: number): void {
    this.#attempts += attempts
    this.#calling = false
  }

  #replaced(replacer: SessionOrder): SessionEffect[] {
    if (this.#state === 'closed') return [answer(CloseSessionResult.CLOSED)]
    if (this.#state === 'registering') {
      // The answer may still make this session the newer one: it is judged then.
      if (this.#replacer === undefined || isLower(this.#replacer, replacer)) this.#replacer = replacer
      return [answer(CloseSessionResult.REMEMBERED)]
    }
    if (!isLower(this.order, replacer)) return [answer(CloseSessionResult.NEWER)]
    const { kind, report } = this.#supersededBy(replacer)
    return [...(this.#finishing === undefined ? report : []), ...this.#finish(kind, ''), answer(CloseSessionResult.CLOSED)]
  }

  /**
   * The newest wins; how soon this one may come back depends on how often that happened of late. One that was told to leave is replaced by the very
   * session that its device was asked to open.
   */
  #supersededBy(replacer: SessionOrder): { readonly kind: CloseKind; readonly report: SessionEffect[] } {
    const takeovers = this.#takeovers + 1
    const isYoung = replacer.epoch - this.#epoch < takeoverWindowMicros
    if (this.#state === 'leaving' || !isYoung || takeovers <= this.#rules.takeoversMax)
      return { kind: closeKinds.superseded, report: [] }
    return { kind: closeKinds.duplicateIdentity, report: [{ type: 'duplicate identity', takeovers }] }
  }

  #leave(reason: string, slotMs: number): SessionEffect[] {
    if (!this.writes || this.#finishing !== undefined) return []
    this.#state = 'leaving'
    return [{ type: 'goaway', reason, slotMs }]
  }

  #finish(kind: CloseKind, detail: string): SessionEffect[] {
    if (this.#state === 'closed' || this.#finishing !== undefined) return []
    if (this.#state === 'registering') return this.#end(kind, detail)
    this.#state = 'leaving'
    this.#finishing = { kind, detail }
    return [{ type: 'finish' }]
  }

  #end(kind: CloseKind, detail = ''): SessionEffect[] {
    return [{ type: 'close socket', kind, detail }, ...this.#closed()]
  }

  #closed(): SessionEffect[] {
    this.#state = 'closed'
    return [{ type: 'give back' }, ...this.#removeRows()]
  }

  /** Once it is over and no call is under way: a call that is may still insert a row, and is waited for. */
  #removeRows(): SessionEffect[] {
    if (this.#calling || this.#attempts === 0) return []
    return [{ type: 'unregister', epoch: this.#attempts === 1 ? this.#epoch : 0 }]
  }
}

/** Whether `a` comes before `b`. */
export function isLower(a: SessionOrder, b: SessionOrder): boolean {
  return a.epoch === b.epoch ? a.sessionId < b.sessionId : a.epoch < b.epoch
}

function answer(result: CloseSessionResult): SessionEffect {
  return { type: 'answer close', result }
}
