import { type Delivery, type Outcome, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { EdgeLinkLimits, LateOutcome, LinkDelivery } from './link.ts'

/** A delivery that waits for the stream (`waiting`), for its first outcome (`sent`), or for more (`told`). */
interface Entry {
  readonly delivery: LinkDelivery
  readonly window: Window
  stage: 'waiting' | 'sent' | 'told'
  timer: Timer
  deviceId: string
  messageId: string
  /** It was written, and the device's answer, or its result, has not come. */
  expectsMore: boolean
}

/** What may be on the stream without a first outcome, and what waits for room. */
class Window {
  /** By delivery id, in the order of arrival. */
  readonly waiting = new Set<number>()
  count = 0
  bytes = 0

  hasRoom(limits: EdgeLinkLimits): boolean {
    return this.count < limits.windowCountMax && this.bytes < limits.windowBytesMax
  }
}

/** Deliveries whose late answer is still understood, on one stream. */
const lateCountMax = 16_384

interface LinkDeliveriesOptions {
  readonly limits: EdgeLinkLimits
  readonly clock: Clock
  readonly metrics: Metrics
  readonly onLateOutcome: ((late: LateOutcome) => void) | undefined
  /** There may be something to send that could not be sent before. */
  readonly onRoom: () => void
  /** A first outcome has not come in time. */
  readonly onSilence: () => void
}

/** The deliveries of one link: what waits for room, what is on the stream, who is told what. It knows nothing of the stream itself. */
export class LinkDeliveries {
  readonly #options: LinkDeliveriesOptions
  readonly #high = new Window()
  readonly #rest = new Window()
  readonly #entries = new Map<number, Entry>()
  /** Deliveries on the stream that nobody waits for any more, by delivery id: the device's later answer still removes what was stored. */
  readonly #late = new Map<number, { deviceId: string; messageId: string }>()
  readonly #lateOutcomes

  constructor(options: LinkDeliveriesOptions) {
    this.#options = options
    this.#lateOutcomes = options.metrics.counter(
      'push_router_late_outcomes_total',
      'Outcomes of deliveries that nobody waits for any more',
    )
  }

  /** Deliveries that somebody waits for. */
  get size(): number {
    return this.#entries.size
  }

  add(id: number, delivery: LinkDelivery): void {
    const window = delivery.high ? this.#high : this.#rest
    this.#entries.set(id, {
      delivery,
      window,
      stage: 'waiting',
      timer: this.#firstOutcomeTimer(id),
      deviceId: '',
      messageId: '',
      expectsMore: false,
    })
    window.waiting.add(id)
  }

  /** Stops calling back. A later answer to what may have been written is still told as a late one. */
  forget(id: number): void {
    const entry = this.#entries.get(id)
    if (!entry) return
    this.#remove(id, entry)
    this.#keepLate(id, entry)
  }

  /** The edge may say more of it, on this stream and nowhere else. */
  #keepLate(id: number, entry: Entry): void {
    if (!entry.expectsMore && entry.stage !== 'sent') return
    this.#late.set(id, { deviceId: entry.deviceId, messageId: entry.messageId })
    const oldest = this.#late.keys().next().value
    if (this.#late.size > lateCountMax && oldest !== undefined) this.#late.delete(oldest)
  }

  /** Whether something waits that has room. */
  get sendable(): boolean {
    const { limits } = this.#options
    return [this.#high, this.#rest].some((window) => window.waiting.size > 0 && window.hasRoom(limits))
  }

  /** Takes what may go out now, HIGH first, up to so many and so many bytes. They count as sent. */
  takeSendable(countMax: number, bytesMax: number): Delivery[] {
    const { limits } = this.#options
    const deliveries: Delivery[] = []
    let bytes = 0
    for (const window of [this.#high, this.#rest]) {
      for (const id of window.waiting) {
        if (deliveries.length >= countMax || bytes >= bytesMax || !window.hasRoom(limits)) break
        const entry = this.#entries.get(id)
        window.waiting.delete(id)
        if (!entry) continue
        entry.stage = 'sent'
        entry.timer.cancel()
        entry.timer = this.#firstOutcomeTimer(id)
        window.count++
        window.bytes += entry.delivery.byteCount
        bytes += entry.delivery.byteCount
        const built = entry.delivery.build(id)
        entry.deviceId = built.deviceId
        entry.messageId = built.messageId
        deliveries.push(built)
        entry.delivery.onSent()
      }
    }
    return deliveries
  }

  /** The edge has said something of a delivery. */
  heard(outcome: Outcome): void {
    const entry = this.#entries.get(outcome.deliveryId)
    if (!entry) return this.#heardLate(outcome)
    if (entry.stage === 'sent') {
      entry.stage = 'told'
      entry.timer.cancel()
      this.#leaveWindow(entry)
    }
    entry.expectsMore =
      (outcome.kind === OutcomeKind.WRITTEN && !outcome.final) ||
      (outcome.kind === OutcomeKind.ACKNOWLEDGED && entry.delivery.wantsResult)
    entry.delivery.onOutcome(outcome)
  }

  /** The stream is over: nobody will answer any more. `unsent` is what becomes of those that were not handed over. */
  loseAll(unsent: 'unreachable' | 'gone'): void {
    for (const id of [...this.#entries.keys()]) this.#lose(id, unsent)
    // What is answered from now on the edge reports by itself.
    this.#late.clear()
  }

  /** An answer that nobody waits for: what was stored meanwhile must go, and the state be recorded. */
  #heardLate(outcome: Outcome): void {
    this.#lateOutcomes.inc()
    const late = this.#late.get(outcome.deliveryId)
    if (!late) return
    const { kind } = outcome
    if (kind !== OutcomeKind.ACKNOWLEDGED && kind !== OutcomeKind.NACKED && kind !== OutcomeKind.RESULT) return
    // After an acknowledgement a result may follow.
    if (kind !== OutcomeKind.ACKNOWLEDGED) this.#late.delete(outcome.deliveryId)
    this.#options.onLateOutcome?.({ ...late, outcome })
  }

  #firstOutcomeTimer(id: number): Timer {
    const { clock, limits } = this.#options
    return clock.after(limits.firstOutcomeTimeoutMs, () => {
      this.#options.onSilence()
      this.#lose(id, 'unreachable')
    })
  }

  #lose(id: number, unsent: 'unreachable' | 'gone'): void {
    const entry = this.#entries.get(id)
    if (!entry) return
    const { stage } = entry
    this.#remove(id, entry)
    this.#keepLate(id, entry)
    entry.delivery.onLost(stage === 'waiting' ? unsent : 'unknown')
  }

  #remove(id: number, entry: Entry): void {
    this.#entries.delete(id)
    entry.timer.cancel()
    entry.window.waiting.delete(id)
    if (entry.stage === 'sent') this.#leaveWindow(entry)
  }

  #leaveWindow(entry: Entry): void {
    entry.window.count--
    entry.window.bytes -= entry.delivery.byteCount
    if (this.sendable) this.#options.onRoom()
  }
}
