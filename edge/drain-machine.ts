import { EvictionPace } from './eviction-pace.ts'

/**
 * serving: no drain. not_ready: says so, and goes on as before until the balancer has noticed. evicting: takes no new devices, and asks
 * those that are here to leave, evenly. forcing: all have been asked; who stays is closed. gone: nobody is left, or their time is over.
 */
export type DrainState = 'serving' | 'not_ready' | 'evicting' | 'forcing' | 'gone'

/** How fast devices are asked to leave: so many a second, or all within a time. */
export type DrainPace = { readonly ratePerSecond: number } | { readonly overMs: number }

/** What may happen to a drain. */
export type DrainEvent =
  /** Drain, or change the pace of the drain that runs. Without a pace a running drain keeps its own. */
  | { readonly type: 'start'; readonly pace?: DrainPace | undefined }
  /** The process stops: drain, or hasten the drain that runs so that all are asked in this time. Cannot be taken back. */
  | { readonly type: 'stop'; readonly overMs: number }
  | { readonly type: 'abort' }
  /** Time has passed, or somebody has gone. `untold`: sessions that have not been asked to leave; `present`: all. */
  | { readonly type: 'look'; readonly untold: number; readonly present: number }

/** What is to be done about it, in this order. */
export type DrainEffect =
  /** Tell the balancer and the registry. */
  | { readonly type: 'report'; readonly draining: boolean }
  | { readonly type: 'take devices'; readonly taken: boolean }
  /** Ask as many sessions to leave, each in its slot. */
  | { readonly type: 'evict'; readonly slotsMs: readonly number[] }
  /** The drain was taken back: who has been asked to leave may stay. */
  | { readonly type: 'keep' }
  /** Close who is still here. */
  | { readonly type: 'cut' }

/** The bounds of a drain, in ms. */
export interface DrainBounds {
  /** How long the balancer needs to notice that the edge is not ready. */
  readonly noticeMs: number
  /** What a drain takes that was started without a pace. */
  readonly overMs: number
  /** How long after its slot a session may stay. */
  readonly graceMs: number
  /** How long after that closing sockets are waited for. */
  readonly closingMs: number
}

/** How long before its slot a session is told of it, in ms. A change of the pace reaches those that come after. */
export const slotLeadMs = 1_000
/** Pace of a drain, sessions a second. */
export const drainRateMin = 0.1
export const drainRateMax = 100_000

/** The life of one edge's drain, without clock or sessions: events and the monotonic time in, effects out. */
export class DrainMachine {
  readonly #bounds: DrainBounds
  #state: DrainState = 'serving'
  #pace: DrainPace | undefined
  #slots: EvictionPace | undefined
  #stopping = false
  #noticedAt = 0
  // When the last one is to be asked, once the process stops.
  #stopBy = 0
  #forceBy = 0

  constructor(bounds: DrainBounds) {
    this.#bounds = bounds
  }

  get state(): DrainState {
    return this.#state
  }

  /** The process stops afterwards: the drain cannot be taken back. */
  get stopping(): boolean {
    return this.#stopping
  }

  /** Sessions a second; undefined before the first one is asked. */
  get ratePerSecond(): number | undefined {
    return this.#slots?.ratePerSecond
  }

  /** Whether an abort would do anything. */
  get abortable(): boolean {
    return !this.#stopping && this.#state !== 'serving' && this.#state !== 'gone'
  }

  handle(event: DrainEvent, nowMs: number): DrainEffect[] {
    switch (event.type) {
      case 'start':
        if (event.pace !== undefined) this.#pace = event.pace
        return this.#begin(nowMs)
      case 'stop': {
        this.#stopping = true
        const effects = this.#begin(nowMs)
        this.#stopBy = Math.max(nowMs, this.#noticedAt) + event.overMs
        return effects
      }
      case 'abort': {
        if (!this.abortable) return []
        const told = this.#state !== 'not_ready'
        this.#state = 'serving'
        this.#slots = this.#pace = undefined
        const open: DrainEffect[] = [
          { type: 'take devices', taken: true },
          { type: 'report', draining: false },
        ]
        return told ? [...open, { type: 'keep' }] : open
      }
      case 'look':
        return this.#look(event.untold, event.present, nowMs)
    }
  }

  #begin(nowMs: number): DrainEffect[] {
    // A pace that came while one runs takes effect with the next look.
    if (this.#state !== 'serving') return []
    this.#state = 'not_ready'
    this.#noticedAt = nowMs + this.#bounds.noticeMs
    return [{ type: 'report', draining: true }]
  }

  #look(untold: number, present: number, nowMs: number): DrainEffect[] {
    const effects: DrainEffect[] = []
    if (this.#state === 'not_ready' && nowMs >= this.#noticedAt) {
      this.#state = 'evicting'
      effects.push({ type: 'take devices', taken: false })
    }
    if (this.#state !== 'evicting' && this.#state !== 'forcing') return effects
    if (present === 0) {
      this.#state = 'gone'
      return effects
    }
    if (untold > 0) {
      // Also while forcing: a handshake may have been under way when the edge stopped taking devices.
      const slotsMs = this.#paced(untold, nowMs).take(nowMs, slotLeadMs, untold)
      if (slotsMs.length === 0) return effects
      this.#forceBy = nowMs + (slotsMs.at(-1) ?? 0) + this.#bounds.graceMs + this.#bounds.closingMs
      return [...effects, { type: 'evict', slotsMs }]
    }
    this.#state = 'forcing'
    if (nowMs < this.#forceBy) return effects
    this.#state = 'gone'
    return [...effects, { type: 'cut' }]
  }

  /** The pace that holds now. */
  #paced(untold: number, nowMs: number): EvictionPace {
    // A time to spread over becomes a rate when it is first used: who comes later does not hasten those who are here.
    const asked = this.#pace === undefined ? undefined : rateOf(this.#pace, untold)
    this.#pace = undefined
    // Who stops must be done in time, whatever was asked for.
    const needed = this.#stopping ? rateOf({ overMs: this.#stopBy - nowMs }, untold) : 0
    if (this.#slots === undefined) {
      this.#slots = new EvictionPace(Math.max(asked ?? rateOf({ overMs: this.#bounds.overMs }, untold), needed), nowMs)
    } else {
      const rate = Math.max(asked ?? this.#slots.ratePerSecond, needed)
      if (rate !== this.#slots.ratePerSecond) this.#slots.change(rate, nowMs)
    }
    return this.#slots
  }
}

function rateOf(pace: DrainPace, count: number): number {
  if ('ratePerSecond' in pace) return pace.ratePerSecond
  if (pace.overMs <= 0) return drainRateMax
  return Math.min(drainRateMax, Math.max(drainRateMin, (count * 1_000) / pace.overMs))
}
