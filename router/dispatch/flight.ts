import type { DeviceResult, Outcome } from '../../gen/push/internal/v1/edge.ts'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { SessionRow } from '../../gen/push/internal/v1/registry.ts'
import { ConfirmLevel, type Message, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Random } from '../../service-kit/random.ts'
import { buildDelivery } from './delivery.ts'
import type { EdgeDirectory } from './edge-directory.ts'
import type { EdgeLinks } from './edge-links.ts'
import { Hold } from './hold.ts'
import type { Boarding } from './lanes.ts'
import type { LateAnswers } from './late-answers.ts'
import type { Link } from './link.ts'
import type { FoundRoutes, Lookups } from './lookups.ts'
import type { OfflinePath } from './offline-path.ts'
import { eventOf, isAnswer } from './outcome-events.ts'
import { type DispatchEvent, type NextStep, nextStep, type Origin } from './outcomes.ts'
import { isFinal } from './receipt-policy.ts'
import type { RouteCache } from './route-cache.ts'
import type { Hops, Settlement } from './settlement.ts'
import type { StateRecorder } from './state-recorder.ts'
import type { StuckPlaces } from './stuck-places.ts'
import { usableRow } from './usable-route.ts'

/** What every flight shares. */
export interface FlightContext {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly cache: RouteCache
  readonly lookups: Lookups
  readonly links: EdgeLinks
  readonly directory: EdgeDirectory
  readonly offlinePath: OfflinePath
  readonly recorder: StateRecorder
  /** Takes an answer that came while the message was being stored. */
  readonly lateAnswers: LateAnswers
  /** Most deliveries that may be unanswered on one edge's link, now. */
  linkCap(): number
  /** How long a written message waits for its device's answer, in ms. */
  readonly ackTimeoutMs: number
  /** A call to the registry has failed (true), or answered again (false). */
  registryFails(fails: boolean): void
  /** Puts a message that can be delivered to nobody where operators see it. Rejects when it could not be put there durably. */
  deadLetter(flight: Flight, reason: StateReason, detail: string): Promise<void>
}

/** What one flight is about. */
export interface FlightOptions {
  readonly message: QueuedMessage
  readonly deviceId: string
  readonly origin: Origin
  /** A direct message that goes to other devices by the same call. Default false. */
  readonly sharedCall?: boolean
  /** Longest hold in ms. For a direct message: the time until it must be settled. */
  readonly holdTimeMs: number
  /** When it was read from the queue, in µs since the epoch; 0 for direct messages. */
  readonly consumed: number
  /** Where it needs a place to be held for an edge that does not answer. */
  readonly stuckPlaces: StuckPlaces
  /** Its edge does not answer, so those that wait for their turn behind it have longer to wait. */
  onStuck?(): void
  /** It has been handed to a stream, or will not be: the device's next message may go. Called once. */
  onHandedOff(): void
  /** It has no next step. Called once, the last thing that a flight does. */
  onSettled(settlement: Settlement): void
  /** A direct message cannot be settled: the publisher gets this error. Called once, instead of `onSettled`. */
  onRefused?(error: PushError): void
}

/** What a flight waits for. */
type Stage = 'new' | 'looking-up' | 'pausing' | 'offered' | 'sent' | 'written' | 'storing' | 'recording' | 'settled'

const shortWaitMs = { min: 150, max: 500 }
const backOffMs = { first: 50, cap: 1_000 }

/**
 * One message on its way to one device, from the first look-up to its final state. It holds what the message waits for; what follows an event is
 * decided by the outcome table alone.
 */
export class Flight implements Boarding {
  readonly message: QueuedMessage
  readonly deviceId: string
  readonly origin: Origin
  readonly #context: FlightContext
  readonly #options: FlightOptions
  readonly #content: Message
  readonly #nowOrNever: boolean
  readonly #hops: Hops
  #stage: Stage = 'new'
  #link: Link | undefined
  #linkEntry = 0
  #row: SessionRow | undefined
  #refused: SessionRow | undefined
  #moveCount = 0
  #unregistered = false
  #maybeWritten = false
  #attempts = 0
  #sessionId = ''
  #detail = ''
  #edgeFinal = false
  #result: DeviceResult | undefined
  /** The device's answer, when it came while the message was being stored. */
  #answerWhileStoring: Outcome | undefined
  #handedOff = false
  #stuck = false
  #waitTimer: Timer | undefined
  readonly #hold: Hold

  constructor(context: FlightContext, options: FlightOptions, content: Message) {
    this.#context = context
    this.#options = options
    this.message = options.message
    this.deviceId = options.deviceId
    this.origin = options.origin
    this.#content = content
    this.#nowOrNever = (content.ttl?.seconds ?? 0) === 0 && (content.ttl?.nanos ?? 0) === 0
    this.#hold = new Hold({
      clock: context.clock,
      expireTime: options.message.expireTime,
      holdTimeMs: options.holdTimeMs,
      stops: options.origin === 'queue',
      onLimit: () => this.#limitReached(),
    })
    this.#hops = {
      accepted: options.message.acceptTime,
      consumed: options.consumed,
      lookedUp: 0,
      sentToEdge: 0,
      written: 0,
      answered: 0,
    }
  }

  /** A device's messages set out in the order of the queue. */
  get chainKey(): string {
    return this.deviceId
  }

  /** The message counts as in flight: its hold runs from here, also while it waits for the device's message before it. */
  board(): void {
    this.#hold.start()
  }

  /** While it waits for its turn, what the one before it waits for holds it up as well: its hold stands still too. */
  registryFails(fails: boolean): void {
    if (this.#stage !== 'new') return
    if (fails) this.#hold.fails()
    else this.#hold.answered()
  }

  get stuck(): boolean {
    return this.#stuck
  }

  waitBehindStuck(): void {
    if (this.#stage === 'new' && !this.#takeStuckPlace()) this.#happened({ kind: 'HOLD_ENDED' })
  }

  /** Sets out. Does nothing for a flight that has ended while it waited. */
  start(): void {
    if (this.#stage !== 'new') return
    this.#unstick()
    void this.#lookUp({ fresh: false, allRows: false })
  }

  /** Ends a direct message with what is known now, because its caller waits no longer. Does nothing once settled. */
  endWait(): void {
    if (this.#isEnding()) return
    if (this.#stage === 'written') return this.#settle(MessageState.WRITTEN, StateReason.WAIT_ENDED)
    // What is with the edge and not heard of may be on the device by now.
    const unknown = this.#maybeWritten || this.#stage === 'sent'
    this.#settle(MessageState.DROPPED, unknown ? StateReason.UNKNOWN : StateReason.UNREACHABLE)
  }

  #isEnding(): boolean {
    return this.#stage === 'storing' || this.#stage === 'recording' || this.#stage === 'settled'
  }

  /** Says what has happened; the table says what follows. */
  #happened(event: DispatchEvent): void {
    if (this.#isEnding()) return
    const step = nextStep(event, {
      origin: this.origin,
      sharedCall: this.#options.sharedCall === true,
      confirm: this.#content.confirm,
      nowOrNever: this.#nowOrNever,
      maybeWritten: this.#maybeWritten || this.#stage === 'sent',
      written: this.#stage === 'written',
      moveCount: this.#moveCount,
      unregistered: this.#unregistered,
    })
    this.#take(step)
  }

  #take(step: NextStep): void {
    switch (step.step) {
      case 'deliver':
        return this.#deliver()
      case 'await-answer':
        this.#stage = 'written'
        this.#waitTimer?.cancel()
        this.#waitTimer = this.#context.clock.after(this.#context.ackTimeoutMs, () => this.#happened({ kind: 'ACK_TIMEOUT' }))
        return
      case 'look-up':
        if (this.#hold.expired) return this.#settle(MessageState.EXPIRED)
        if (step.wait === 'back-off' && !this.#mayBeStuck()) return this.#happened({ kind: 'HOLD_ENDED' })
        return this.#pause(this.#waitMs(step.wait), () => void this.#lookUp({ fresh: true, allRows: step.allRows === true }))
      case 'unregister':
        return void this.#unregister()
      case 'store':
        return void this.#store(step.reason)
      case 'finish':
        return this.#settle(step.state, step.reason)
      case 'dead-letter':
        return void this.#deadLetter(step.reason)
      case 'refuse':
        return this.#refuse(
          step.reason === 'RATE_EXCEEDED'
            ? new PushError(step.reason, "the device's edge has too much unanswered; try again", {}, { retryAfterMs: 1_000 })
            : new PushError(step.reason, `the message is too large for the device's connection: ${this.#detail}`),
        )
    }
  }

  // --- look-up

  async #lookUp(how: { fresh: boolean; allRows: boolean }): Promise<void> {
    this.#leaveLink()
    this.#stage = 'looking-up'
    const { lookups, clock } = this.#context
    let found: FoundRoutes
    try {
      found = await lookups.find(this.deviceId, how)
    } catch {
      if (this.#stage !== 'looking-up') return
      return this.#registryFailed(() => void this.#lookUp(how))
    }
    if (this.#stage !== 'looking-up') return
    if (!found.remembered) this.#registryAnswered()
    this.#hops.lookedUp = clock.nowMicros()
    if (this.#hold.expired) return this.#settle(MessageState.EXPIRED)
    this.#row = usableRow(found.routes, this.#context)
    if (this.#row) return this.#happened({ kind: 'ROUTE_FOUND', refused: isSameRow(this.#row, this.#refused) })
    const stale = found.routes[0]?.row
    if (stale) this.#context.cache.evict(stale)
    // A remembered route whose edge is gone says nothing about where the device is now.
    if (stale && !how.fresh) return void this.#lookUp({ fresh: true, allRows: false })
    this.#happened({ kind: 'NO_ROUTE', more: found.more })
  }

  async #unregister(): Promise<void> {
    const row = this.#row
    if (!row) return
    this.#stage = 'looking-up'
    try {
      await this.#context.lookups.unregister(row)
    } catch {
      if (this.#stage !== 'looking-up') return
      return this.#registryFailed(() => void this.#unregister())
    }
    if (this.#stage !== 'looking-up') return
    this.#registryAnswered()
    this.#unregistered = true
    void this.#lookUp({ fresh: true, allRows: false })
  }

  /**
   * The registry does not answer: this says nothing about the device. The hold stops, and the call is made again after a wait. Whoever pauses
   * consuming must ask until there is an answer; a direct message gives up before, and with nothing in flight nobody would ever ask again.
   */
  #registryFailed(again: () => void): void {
    if (this.#stage === 'settled') return
    this.#hold.fails()
    if (this.origin === 'queue') this.#context.registryFails(true)
    const waitMs = this.#waitMs('back-off')
    this.#waitTimer?.cancel()
    this.#waitTimer = this.#context.clock.after(waitMs, again)
  }

  #registryAnswered(): void {
    this.#context.registryFails(false)
    this.#hold.answered()
  }

  // --- delivery

  #deliver(): void {
    const row = this.#row
    if (!row) return
    const { links, clock } = this.#context
    const link = links.to(row)
    if (link.unansweredCount >= this.#context.linkCap()) return this.#happened({ kind: 'LINK_FULL' })
    if (!link.answering && !this.#mayBeStuck()) return this.#happened({ kind: 'HOLD_ENDED' })
    this.#stage = 'offered'
    this.#attempts++
    this.#link = link
    this.#linkEntry = link.deliver({
      wantsResult: this.#content.confirm === ConfirmLevel.RESULT,
      high: this.#content.priority === Priority.HIGH,
      byteCount: this.#content.payload.length + 512,
      build: (deliveryId) =>
        buildDelivery(this.message, this.#content, row, {
          deliveryId,
          redelivered: this.#maybeWritten || this.message.attempt > 0,
          remainingTime: this.message.expireTime - clock.nowMicros(),
        }),
      onSent: () => {
        this.#stage = 'sent'
        this.#hops.sentToEdge = clock.nowMicros()
        this.#handOff()
      },
      onOutcome: (outcome) => this.#heard(outcome),
      onLost: (how) => {
        this.#link = undefined
        this.#context.cache.evict(row)
        if (how === 'unknown') this.#maybeWritten = true
        if (how === 'gone') this.#context.cache.evictEdge(row.edgeId)
        this.#happened({ kind: how === 'unknown' ? 'UNKNOWN' : how === 'gone' ? 'EDGE_GONE' : 'UNREACHABLE' })
      },
    })
  }

  #heard(outcome: Outcome): void {
    const row = this.#row
    this.#unstick()
    this.#sessionId = outcome.sessionId
    if (outcome.detail) this.#detail = outcome.detail
    if (outcome.writtenTime > 0) {
      this.#hops.written = outcome.writtenTime
      this.#maybeWritten = true
    }
    if (outcome.answeredTime > 0) this.#hops.answered = outcome.answeredTime
    if (outcome.result) this.#result = outcome.result
    const event = eventOf(outcome)
    if (event.kind === 'WRITTEN') this.#edgeFinal = event.final
    if (this.#stage === 'storing' && isAnswer(event)) this.#answerWhileStoring = outcome
    if (event.kind === 'NOT_CONNECTED' && row) {
      this.#context.cache.evict(row)
      this.#refused = row
      this.#moveCount++
    }
    if (event.kind === 'CLOSED_UNACKNOWLEDGED') {
      this.#maybeWritten = true
      if (row) this.#context.cache.evict(row)
    }
    this.#happened(event)
  }

  #handOff(): void {
    if (this.#handedOff) return
    this.#handedOff = true
    this.#options.onHandedOff()
  }

  #leaveLink(): void {
    this.#link?.forget(this.#linkEntry)
    this.#link = undefined
  }

  // --- waiting

  /**
   * Whether it may be held, or held on, for an edge that does not answer. Only so many may: else the devices of a dead third of all edges would
   * use up what those of the others need. Whoever has no place ends as if its hold had ended.
   */
  #mayBeStuck(): boolean {
    if (!this.#takeStuckPlace()) return false
    if (!this.#handedOff) this.#options.onStuck?.()
    return true
  }

  #takeStuckPlace(): boolean {
    const { stuckPlaces } = this.#options
    this.#stuck = this.#stuck ? stuckPlaces.keep() : stuckPlaces.take()
    return this.#stuck
  }

  #unstick(): void {
    if (!this.#stuck) return
    this.#stuck = false
    this.#options.stuckPlaces.release()
  }

  #pause(ms: number, then: () => void): void {
    this.#leaveLink()
    if (ms === 0) return then()
    this.#stage = 'pausing'
    this.#waitTimer?.cancel()
    this.#waitTimer = this.#context.clock.after(ms, then)
  }

  #waitMs(wait: 'none' | 'short' | 'back-off'): number {
    const { random } = this.#context
    if (wait === 'none') return 0
    if (wait === 'short') return shortWaitMs.min + random.next() * (shortWaitMs.max - shortWaitMs.min)
    return Math.min(backOffMs.cap, backOffMs.first * 2 ** Math.min(this.#attempts, 8)) * (0.5 + random.next() / 2)
  }

  /** The message has expired, or its hold has ended. */
  #limitReached(): void {
    if (this.#isEnding()) return
    const direct = this.origin === 'direct'
    // What the device may be about to answer is not judged by the clock: its outcome, or the end of the wait for it, comes soon.
    if ((this.#stage === 'sent' || this.#stage === 'written') && !direct) return this.#hold.later()
    if (this.#hold.expired && this.#stage !== 'written') return this.#happened({ kind: 'DEADLINE_PASSED' })
    if (!this.#hold.ended) return this.#hold.later()
    if (this.#hold.failing) {
      return this.#refuse(
        new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer, so the device could not be looked up'),
      )
    }
    if (direct && this.#nowOrNever) return this.endWait()
    this.#happened({ kind: 'HOLD_ENDED' })
  }

  // --- the end

  async #store(reason: StateReason): Promise<void> {
    // Where storing has failed before, the device may have answered meanwhile, and that counts for more than the expiry.
    if (this.#hold.expired) return this.#settle(MessageState.EXPIRED, StateReason.UNSPECIFIED, () => this.#takeAnswer())
    // The link goes on listening: an answer that comes while the message is being stored takes it out again. Nobody else could take it yet: neither
    // an entry nor a receipt says whose it is.
    const listens = this.#stage === 'written' || this.#stage === 'sent' || this.#stage === 'storing'
    if (!listens) this.#leaveLink()
    this.#stage = 'storing'
    this.#waitTimer?.cancel()
    this.#handOff()
    const { offlinePath } = this.#context
    const message = this.#maybeWritten ? { ...this.message, attempt: this.message.attempt + 1 } : this.message
    try {
      const end = await offlinePath.store(message, this.deviceId, reason, {
        untilMs: this.#hold.endsAt,
        mayBeStuck: () => this.#mayBeStuck(),
      })
      if (this.#hold.failing) this.#registryAnswered()
      this.#settle(end.state, end.reason, () => this.#takeAnswer())
    } catch (cause) {
      if (this.origin === 'direct') {
        return this.#refuse(new PushError('REGISTRY_UNAVAILABLE', 'the message could not be stored', {}, { cause }))
      }
      this.#registryFailed(() => void this.#store(reason))
    }
  }

  /** What the device has answered while the message was being stored. */
  async #takeAnswer(): Promise<void> {
    const answer = this.#answerWhileStoring
    if (answer === undefined) return
    const { kind, answeredTime, detail, result } = answer
    const { messageId } = this.message
    await this.#context.lateAnswers.take({ deviceId: this.deviceId, messageId, kind, answeredTime, detail, result })
  }

  async #deadLetter(reason: StateReason): Promise<void> {
    this.#leaveLink()
    this.#stage = 'storing'
    this.#handOff()
    try {
      await this.#context.deadLetter(this, reason, this.#detail)
      this.#settle(MessageState.DEAD_LETTERED, reason)
    } catch (cause) {
      this.#context.log.warn('dead letter not written yet', { message_id: this.message.messageId, cause })
      this.#waitTimer = this.#context.clock.after(this.#waitMs('back-off'), () => void this.#deadLetter(reason))
    }
  }

  /** The message has no next step: its receipt is written before it counts as finished. `after` runs when the receipt is written. */
  #settle(state: MessageState, reason: StateReason = StateReason.UNSPECIFIED, after?: () => Promise<void>): void {
    if (this.#stage === 'settled' || this.#stage === 'recording') return
    this.#stage = 'recording'
    this.#leaveLink()
    this.#waitTimer?.cancel()
    this.#hold.cancel()
    this.#unstick()
    this.#handOff()
    const settlement: Settlement = {
      state,
      reason,
      detail: this.#detail,
      edgeId: this.#hops.sentToEdge > 0 ? (this.#row?.edgeId ?? '') : '',
      sessionId: this.#sessionId,
      attemptCount: this.#attempts,
      final: isFinal(state, this.#content.confirm, this.#edgeFinal),
      hops: this.#hops,
    }
    void this.#record(settlement, after)
  }

  async #record(settlement: Settlement, after: (() => Promise<void>) | undefined): Promise<void> {
    const { recorder } = this.#context
    const direct = this.origin === 'direct'
    try {
      await recorder.record(
        this.message,
        this.deviceId,
        { ...settlement, edgeFinal: this.#edgeFinal, result: this.#result },
        { returnedByDirectCall: direct },
      )
      await after?.()
    } catch (cause) {
      if (direct) {
        return this.#refuse(
          new PushError('REGISTRY_UNAVAILABLE', 'what became of the message could not be recorded', {}, { cause }),
        )
      }
      return this.#registryFailed(() => void this.#record(settlement, after))
    }
    if (this.#hold.failing) this.#context.registryFails(false)
    if (this.#end()) this.#options.onSettled(settlement)
  }

  #refuse(error: PushError): void {
    if (this.#end()) this.#options.onRefused?.(error)
  }

  #end(): boolean {
    if (this.#stage === 'settled') return false
    this.#stage = 'settled'
    this.#leaveLink()
    this.#waitTimer?.cancel()
    this.#hold.cancel()
    this.#unstick()
    this.#handOff()
    return true
  }
}

function isSameRow(row: SessionRow, other: SessionRow | undefined): boolean {
  return row.sessionId === other?.sessionId && row.epoch === other.epoch && row.edgeId === other.edgeId
}
