import type { Delivery, OutcomeKind as Kind } from '../gen/push/internal/v1/edge.ts'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { ConfirmLevel, MessageClass, Priority } from '../gen/push/v1/message.ts'
import { createTokenBucket, type TokenBucket } from '../service-kit/token-bucket.ts'
import type { AwaitedOwner } from './awaited-results.ts'
import type { DeviceAnswer } from './device-answer.ts'
import { lateAnswerOf, outcomeOf } from './device-answer.ts'
import type { DeviceSession } from './device-session.ts'
import type { Entry, OutcomeFacts, Waiter } from './entry.ts'
import { join, tell, unwritten } from './entry.ts'
import { Outbox } from './outbox.ts'
import { Pending } from './pending.ts'
import type { SessionHost, Transport } from './session-host.ts'

/** Most acknowledged messages of one session whose result is awaited; above it the oldest is let go. */
export const awaitedPerSessionMax = 1_024

/** The messages of one session: what waits, what is written and unanswered, and who is told. */
export class SessionMessages implements AwaitedOwner {
  readonly #host: SessionHost
  readonly #session: DeviceSession
  readonly #transport: Transport
  readonly #outbox: Outbox
  readonly #pending = new Pending()
  // Acknowledged, and the result still to come; oldest first.
  readonly #awaiting = new Map<string, Entry>()
  // Made with the first delivery.
  #rate: TokenBucket | undefined
  // Since when something waits and the transport takes nothing.
  #unwritableSince: number | undefined

  constructor(host: SessionHost, session: DeviceSession, transport: Transport) {
    this.#host = host
    this.#session = session
    this.#transport = transport
    this.#outbox = new Outbox(host.settings.outbox, host.outboxBudget)
  }

  /** Nothing waits, nothing is unanswered. */
  get idle(): boolean {
    return this.#pending.size === 0
  }

  /** Something waits, has no place or cannot be written: worth a look from time to time. */
  get restless(): boolean {
    return this.#outbox.count > 0 || this.stuckSince !== undefined
  }

  /** Since when the device makes no progress; undefined when it does. */
  get stuckSince(): number | undefined {
    return this.#pending.fullSince ?? this.#unwritableSince
  }

  /** A flush may bring more: nothing that it brings would be refused, or wait for long. */
  get hasRoom(): boolean {
    if (this.#unwritableSince !== undefined || !this.#outbox.low) return false
    return !this.#session.acknowledges || this.#pending.hasPlace(false)
  }

  /** Until a second's worth of messages may be delivered at once, in ms: a flush for each single one would cost more than it brings. */
  get refillMs(): number {
    const { deliveryRate } = this.#host.settings
    if (deliveryRate === undefined || this.#rate === undefined) return 0
    return this.#rate.waitMs(Math.min(deliveryRate.burst, deliveryRate.perSecond))
  }

  holds(messageId: string): boolean {
    return this.#pending.find(messageId) !== undefined || this.#awaiting.has(messageId)
  }

  /** Acknowledged, and the result still to come. */
  awaits(messageId: string): boolean {
    return this.#awaiting.has(messageId)
  }

  /** Whether an answer of this type would be news: an acknowledged message has only its result to come. */
  expects(messageId: string, type: DeviceAnswer['type']): boolean {
    const entry = this.#find(messageId)
    return entry !== undefined && (entry.acknowledged === undefined || type !== 'ack')
  }

  unanswered(): Set<string> {
    return this.#pending.unanswered()
  }

  deliver(delivery: Delivery, waiter: Waiter): void {
    const held = this.#find(delivery.messageId)
    if (held !== undefined) {
      this.#host.metrics.joined.inc({ met: metOf(held) })
      join(held, waiter)
      return
    }
    const refuse = (kind: Kind, detail = '') => {
      this.#host.metrics.outcomes.inc({ kind: kindName(kind) })
      waiter.sink.outcome(waiter.deliveryId, unwritten(kind, this.#session.sessionId, detail))
    }
    if (!this.#session.accepts) return refuse(OutcomeKind.NOT_CONNECTED)
    if (delivery.remainingTime <= 0) return refuse(OutcomeKind.EXPIRED)
    if (this.#stalled) return refuse(OutcomeKind.SLOW_CONSUMER)
    if (!this.#withinRate(isReserved(delivery))) return refuse(OutcomeKind.RATE_LIMITED)
    const encoded = this.#transport.codec.encodeMessage(delivery, this.#host.settings.messageFrameLimitBytes)
    if (!encoded.ok) return refuse(OutcomeKind.TOO_LARGE, encoded.detail)
    const entry = entryOf(delivery, encoded.bytes, waiter, this.#host.clock.monotonic())
    const offered = this.#outbox.offer(entry)
    if (offered.kind === 'full') return refuse(OutcomeKind.SLOW_CONSUMER)
    this.#pending.add(entry)
    if (offered.kind === 'older') {
      this.#settle(entry, unwritten(OutcomeKind.REPLACED, this.#session.sessionId))
      return
    }
    if (offered.replaced !== undefined) {
      this.#settle(offered.replaced, unwritten(OutcomeKind.REPLACED, this.#session.sessionId))
    }
    this.pump()
  }

  /** Writes what may be written now. */
  pump(): void {
    if (!this.#session.writes) return
    const nowMs = this.#host.clock.monotonic()
    let blocked = false
    while (this.#outbox.count > 0) {
      if (!this.#transport.writable) {
        blocked = true
        break
      }
      const entry = this.#next()
      if (entry === undefined) break
      this.#outbox.remove(entry)
      this.#write(entry, nowMs)
    }
    if (blocked) this.#unwritableSince ??= nowMs
    else this.#unwritableSince = undefined
  }

  /** A device's answer. False when there is no such message. */
  answered(messageId: string, answer: DeviceAnswer): boolean {
    const entry = this.#find(messageId)
    if (entry === undefined) return false
    if (entry.acknowledged !== undefined && answer.type === 'ack') {
      this.#host.metrics.answers.inc({ became: 'repeated' })
      return true
    }
    // Not written here yet: it came by an earlier connection, and need not be written again.
    if (entry.written === undefined) this.#outbox.remove(entry)
    const facts = {
      ...outcomeOf(answer, entry.wantsResult, this.#session.sessionId),
      writtenTime: entry.written?.writtenTime ?? 0,
      answeredTime: this.#host.clock.nowMicros(),
    }
    const told = entry.wantsResult && answer.type === 'ack' ? this.#acknowledge(entry, facts) : this.#settle(entry, facts)
    if (!told) this.#host.reportLate(lateAnswerOf(this.#session.deviceId, messageId, facts))
    this.#host.metrics.answers.inc({ became: told ? 'told' : 'unclaimed' })
    this.pump()
    return true
  }

  /** The result is not awaited any more: an acknowledged message is what it is from now on. */
  forget(entry: Entry): void {
    this.#awaiting.delete(entry.messageId)
    this.#host.awaitedResults.remove(entry)
    if (entry.acknowledged === undefined) return
    this.#host.finalAnswers.remember(this.#session.deviceId, entry.messageId, entry.acknowledged)
  }

  /** Answers EXPIRED for what has expired, SLOW_CONSUMER for what has waited too long. */
  expire(nowMs: number): void {
    for (const entry of this.#outbox.takeExpired(nowMs)) {
      this.#settle(entry, unwritten(OutcomeKind.EXPIRED, this.#session.sessionId))
    }
    for (const entry of this.#outbox.takeOlder(nowMs - this.#host.settings.outboxAgeMs)) {
      this.#host.metrics.outboxAged.inc()
      this.#settle(entry, unwritten(OutcomeKind.SLOW_CONSUMER, this.#session.sessionId))
    }
  }

  /** Nothing will be written any more: what waits was not. */
  giveBack(): void {
    for (const entry of this.#outbox.takeAll()) {
      this.#settle(entry, unwritten(OutcomeKind.NOT_CONNECTED, this.#session.sessionId))
    }
  }

  /** No answer will come any more. */
  abandon(): void {
    this.giveBack()
    for (const entry of [...this.#awaiting.values()]) this.forget(entry)
    for (const entry of this.#pending.takeAll()) {
      const facts = { ...unwritten(OutcomeKind.CLOSED_UNACKNOWLEDGED, this.#session.sessionId) }
      this.#tell(entry, { ...facts, writtenTime: entry.written?.writtenTime ?? 0 })
    }
  }

  /** It has taken nothing for so long that what it is given now would only be given back. */
  get #stalled(): boolean {
    const since = this.#unwritableSince
    return since !== undefined && this.#host.clock.monotonic() - since >= this.#host.settings.outboxAgeMs
  }

  /** Counts the delivery. HIGH and RECOVERY pass in any case, at the cost of those that come after. */
  #withinRate(reserved: boolean): boolean {
    const { settings, clock, metrics } = this.#host
    if (settings.deliveryRate === undefined) return true
    const { perSecond: ratePerSecond, burst } = settings.deliveryRate
    this.#rate ??= createTokenBucket({ ratePerSecond, burst, clock })
    if (this.#rate.take()) return true
    if (reserved) metrics.rateExempt.inc()
    return reserved
  }

  #find(messageId: string): Entry | undefined {
    return this.#pending.find(messageId) ?? this.#awaiting.get(messageId)
  }

  #next(): Entry | undefined {
    if (!this.#session.acknowledges || this.#pending.hasPlace(false)) return this.#outbox.next(false)
    return this.#pending.hasPlace(true) ? this.#outbox.next(true) : undefined
  }

  #write(entry: Entry, nowMs: number): void {
    const { sessionId, accountId, acknowledges } = this.#session
    if (entry.expiresAt <= nowMs) {
      this.#settle(entry, unwritten(OutcomeKind.EXPIRED, sessionId))
      return
    }
    // Here and not at acceptance: what one account may see must not appear after the device has changed to another.
    if (entry.accountId !== '' && entry.accountId !== accountId) {
      this.#settle(entry, unwritten(OutcomeKind.ACCOUNT_MISMATCH, sessionId))
      return
    }
    if (entry.frame !== undefined) this.#transport.write(entry.frame)
    entry.frame = undefined
    const facts = {
      ...unwritten(OutcomeKind.WRITTEN, sessionId),
      final: !acknowledges,
      writtenTime: this.#host.clock.nowMicros(),
    }
    if (!acknowledges) {
      this.#settle(entry, facts)
      return
    }
    entry.written = facts
    this.#pending.wrote(entry, nowMs)
    this.#tell(entry, facts)
  }

  /** Frees its place; the message stays known for its result. */
  #acknowledge(entry: Entry, facts: OutcomeFacts): boolean {
    this.#pending.remove(entry)
    entry.acknowledged = facts
    this.#awaiting.set(entry.messageId, entry)
    const [oldest] = this.#awaiting.values()
    if (oldest !== undefined && this.#awaiting.size > awaitedPerSessionMax) {
      this.#host.metrics.awaitedForgotten.inc()
      this.forget(oldest)
    }
    this.#host.awaitedResults.add(entry, this)
    return this.#tell(entry, facts)
  }

  /** The last outcome. */
  #settle(entry: Entry, facts: OutcomeFacts): boolean {
    this.#pending.remove(entry)
    if (this.#awaiting.delete(entry.messageId)) this.#host.awaitedResults.remove(entry)
    if (finalKinds.has(facts.kind) || facts.final)
      this.#host.finalAnswers.remember(this.#session.deviceId, entry.messageId, facts)
    return this.#tell(entry, facts)
  }

  #tell(entry: Entry, facts: OutcomeFacts): boolean {
    this.#host.metrics.outcomes.inc({ kind: kindName(facts.kind) })
    return tell(entry, facts)
  }
}

/**
 * What a repeat is given instead of being written: the device's answers, and REPLACED, because an older version that is repeated
 * after the newer one was written would otherwise follow it.
 */
const finalKinds = new Set<Kind>([OutcomeKind.ACKNOWLEDGED, OutcomeKind.RESULT, OutcomeKind.NACKED, OutcomeKind.REPLACED])

const kindNames = new Map(Object.entries(OutcomeKind).map(([name, kind]) => [kind, name.toLowerCase()] as const))

function kindName(kind: Kind): string {
  return kindNames.get(kind) ?? 'unspecified'
}

function entryOf(delivery: Delivery, frame: Buffer, waiter: Waiter, nowMs: number): Entry {
  const { messageId, messageClass, priority, principal, target, collapseKey } = delivery
  return {
    messageId,
    lane: priority === Priority.HIGH ? 0 : priority === Priority.LOW ? 2 : 1,
    reserved: isReserved(delivery),
    // As a list in JSON, so that no choice of names makes two keys look like one.
    collapse: collapseKey === '' ? undefined : JSON.stringify([principal, messageClass, target, collapseKey]),
    acceptTime: delivery.acceptTime,
    waitsSince: nowMs,
    expiresAt: nowMs + delivery.remainingTime / 1000,
    accountId: delivery.accountId,
    frameBytes: frame.length,
    wantsResult: delivery.confirm === ConfirmLevel.RESULT,
    frame,
    waiters: [waiter],
    written: undefined,
    acknowledged: undefined,
  }
}

function isReserved({ priority, messageClass }: Delivery): boolean {
  return priority === Priority.HIGH || messageClass === MessageClass.RECOVERY
}

function metOf(entry: Entry): string {
  if (entry.acknowledged !== undefined) return 'acknowledged'
  return entry.written === undefined ? 'waiting' : 'written'
}
