import { Metadata } from 'nice-grpc'
import {
  type CloseSession,
  type CloseSessionResult,
  type DeliverRequest,
  type DeliverResponse,
  type Delivery,
  EdgeServiceDefinition,
  type InboxReady,
  type InboxReadyResult,
  type Outcome,
  OutcomeKind,
} from '../../gen/push/internal/v1/edge.ts'
import { type Backoff, createBackoff } from '../../service-kit/backoff.ts'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'

/** One delivery as dispatch hands it to a link. The link calls back until it has said `lost`, or until it is told to forget. */
export interface LinkDelivery {
  /** HIGH has a window of its own, so that bulk cannot stand in its way. */
  readonly high: boolean
  /** Rough size on the wire in bytes. */
  readonly byteCount: number
  /** A result is wanted after the acknowledgement. */
  readonly wantsResult: boolean
  /** Builds the delivery at the moment it goes onto the stream, so that the remaining time is right. */
  build(deliveryId: number): Delivery
  /** It has been handed to the stream. */
  onSent(): void
  /** The edge has said something of it. More may follow. */
  onOutcome(outcome: Outcome): void
  /** Nothing more will be heard of it. `unknown`: it was handed over; `unreachable` and `gone`: it was not. */
  onLost(how: 'unknown' | 'unreachable' | 'gone'): void
}

/** What became of a close that a link carried. */
export type CloseAnswer = CloseSessionResult | 'unanswered' | 'gone'

/** What became of a poke that a link carried. */
export type PokeAnswer = InboxReadyResult | 'unanswered' | 'gone'

/** Names a session at the edge. */
export interface SessionName {
  readonly deviceId: string
  readonly sessionId: string
}

/** An answer to a delivery that nobody waits for any more. */
export interface LateOutcome {
  readonly deviceId: string
  readonly messageId: string
  readonly outcome: Outcome
}

/** How a link stands. `down`: the last attempt to open a stream failed, and the next one waits for the back-off. */
export type LinkState = 'idle' | 'opening' | 'open' | 'down' | 'gone'

/** What dispatch and the services need of a link. */
export interface Link {
  /** How the link stands now. */
  readonly state: LinkState
  /** Sends a delivery as soon as the window allows. Returns the number by which `forget` knows it. Calls back in a later tick at the earliest. */
  deliver(delivery: LinkDelivery): number
  /** Stops calling back for a delivery. What is on its way stays on its way. */
  forget(id: number): void
  /** Asks the edge to close a session. Never rejects. */
  closeSession(request: Omit<CloseSession, 'closeId'>, timeoutMs: number): Promise<CloseAnswer>
  /** Tells a session that messages wait in its device's inbox. Never refused by the link's cap, never rejects. */
  poke(session: SessionName, timeoutMs: number): Promise<PokeAnswer>
  /** Remembers a poke that was not answered: it goes first when a stream opens again, and is dropped when the edge is gone. */
  owePoke(session: SessionName): void
  /** Deliveries that are not finished with this link. */
  readonly unansweredCount: number
}

/** Bounds of a link. */
export interface EdgeLinkLimits {
  /** Deliveries without a first outcome, in each of the two windows. */
  readonly windowCountMax: number
  /** Their bytes, in each of the two windows. */
  readonly windowBytesMax: number
  /** How long to wait for a first outcome, or for the stream to take the delivery, in ms. */
  readonly firstOutcomeTimeoutMs: number
  /** How long opening a stream may take in ms. */
  readonly openTimeoutMs: number
  /** A stream without traffic for this long in ms is closed. */
  readonly idleTimeoutMs: number
}

/** The bounds a router uses unless told otherwise. */
export const defaultLinkLimits: EdgeLinkLimits = {
  windowCountMax: 512,
  windowBytesMax: 1024 * 1024,
  firstOutcomeTimeoutMs: 5_000,
  openTimeoutMs: 3_000,
  idleTimeoutMs: 600_000,
}

/** Deliveries in one frame: more saves nothing and adds latency. */
const frameCountMax = 64
const frameBytesMax = 256 * 1024

/** What a link needs. */
export interface EdgeLinkOptions {
  readonly edgeId: string
  readonly address: string
  readonly limits: EdgeLinkLimits
  /** Hears the device's answers to deliveries that nobody waits for any more. */
  readonly onLateOutcome?: ((late: LateOutcome) => void) | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** Owed pokes that an edge may have. */
const owedCountMax = 65_536
/** How long an owed poke waits for its answer, in ms, before it is owed again. */
const owedPokeTimeoutMs = 15_000
/** Deliveries whose late answer is still understood, on one stream. */
const lateCountMax = 16_384

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

/** A close or a poke that waits for its answer. */
interface Ask {
  readonly frame: { readonly close: CloseSession } | { readonly poke: InboxReady }
  readonly settle: (answer: number | 'unanswered' | 'gone') => void
  readonly timer: Timer
}

/** One stream, from its opening to its end. */
class Stream {
  readonly abort = new AbortController()
  #wake: (() => void) | undefined

  /** Something may be sendable now, or the stream shall end. */
  wake(): void {
    this.#wake?.()
  }

  /** Waits until woken, then to the end of the tick, so that whatever else comes in it goes out in the same frame. */
  async sleep(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve
      if (this.abort.signal.aborted) resolve()
    })
    this.#wake = undefined
    await new Promise<void>((resolve) => setImmediate(resolve))
  }

  end(): void {
    this.abort.abort()
    this.wake()
  }
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

/**
 * The router's stream to one edge. Opened when something is first sent, closed after idling, opened again after it breaks. It knows nothing
 * of messages and decides nothing: it says what was heard, and when nothing will be.
 */
export class EdgeLink implements Link {
  readonly edgeId: string
  readonly address: string
  readonly #options: EdgeLinkOptions
  readonly #backoff: Backoff
  readonly #high = new Window()
  readonly #rest = new Window()
  readonly #entries = new Map<number, Entry>()
  readonly #asks = new Map<number, Ask>()
  readonly #unsentAsks: Ask[] = []
  /** Written deliveries that nobody waits for any more, by delivery id: a later answer still removes what was stored. */
  readonly #late = new Map<number, { deviceId: string; messageId: string }>()
  /** Sessions whose poke is owed, by session id. */
  readonly #owed = new Map<string, SessionName>()
  #owedTimer: Timer | undefined
  readonly #lateOutcomes
  readonly #owedDropped
  readonly #streamEnds
  #connection: GrpcConnection | undefined
  #state: LinkState = 'idle'
  #retryAt = 0
  #lastId = 0
  #idleTimer: Timer | undefined
  #lastTraffic = 0
  #stream: Stream | undefined
  #ending = false

  constructor(options: EdgeLinkOptions) {
    this.edgeId = options.edgeId
    this.address = options.address
    this.#options = options
    this.#backoff = createBackoff({ baseMs: 50, capMs: 2_000, random: options.random })
    this.#lateOutcomes = options.metrics.counter(
      'push_router_late_outcomes_total',
      'Outcomes of deliveries that nobody waits for any more',
    )
    this.#owedDropped = options.metrics.counter(
      'push_router_owed_pokes_dropped_total',
      'Owed pokes forgotten because an edge had too many; the session finds its mail by itself, minutes later',
    )
    this.#streamEnds = options.metrics.counter('push_router_edge_stream_ends_total', 'Streams to edges that ended, by cause', [
      'cause',
    ])
  }

  get state(): LinkState {
    return this.#state
  }

  get unansweredCount(): number {
    return this.#entries.size
  }

  deliver(delivery: LinkDelivery): number {
    const id = ++this.#lastId
    const window = delivery.high ? this.#high : this.#rest
    const { clock, limits } = this.#options
    const timer = clock.after(limits.firstOutcomeTimeoutMs, () => this.#lose(id))
    this.#entries.set(id, { delivery, window, stage: 'waiting', timer, deviceId: '', messageId: '', expectsMore: false })
    window.waiting.add(id)
    this.#nudge()
    return id
  }

  forget(id: number): void {
    const entry = this.#entries.get(id)
    if (!entry) return
    this.#remove(id, entry)
    if (entry.expectsMore) this.#expectLate(id, entry)
  }

  closeSession(request: Omit<CloseSession, 'closeId'>, timeoutMs: number): Promise<CloseAnswer> {
    return this.#ask<CloseSessionResult>((closeId) => ({ close: { ...request, closeId } }), timeoutMs)
  }

  poke({ deviceId, sessionId }: SessionName, timeoutMs: number): Promise<PokeAnswer> {
    return this.#ask<InboxReadyResult>((pokeId) => ({ poke: { deviceId, sessionId, pokeId } }), timeoutMs)
  }

  owePoke(session: SessionName): void {
    if (this.#state === 'gone') return
    this.#owed.set(session.sessionId, session)
    if (this.#owed.size > owedCountMax) {
      const oldest = this.#owed.keys().next().value
      if (oldest !== undefined) this.#owed.delete(oldest)
      this.#owedDropped.inc()
    }
    this.#payOwed()
  }

  #ask<Answer extends number>(frameOf: (id: number) => Ask['frame'], timeoutMs: number): Promise<Answer | 'unanswered' | 'gone'> {
    const id = ++this.#lastId
    return new Promise((resolve) => {
      const timer = this.#options.clock.after(timeoutMs, () => this.#settleAsk(id, 'unanswered'))
      const ask: Ask = { frame: frameOf(id), settle: (answer) => resolve(answer as Answer | 'unanswered' | 'gone'), timer }
      this.#asks.set(id, ask)
      this.#unsentAsks.push(ask)
      this.#nudge()
    })
  }

  /** Sends the owed pokes when a stream is open; else sees to it that one is opened when the back-off is over. */
  #payOwed(): void {
    if (this.#owed.size === 0 || this.#state === 'gone') return
    if (this.#state === 'open') {
      for (const session of this.#owed.values()) {
        this.#owed.delete(session.sessionId)
        // An answer of either kind pays it: a session that has ended leaves the mail to the one that registers next, which sees the hint.
        void this.poke(session, owedPokeTimeoutMs).then((answer) => {
          if (answer === 'unanswered') this.owePoke(session)
        })
      }
      return
    }
    if (this.#state === 'opening' || this.#owedTimer !== undefined) return
    const waitMs = this.#state === 'down' ? Math.max(0, this.#retryAt - this.#options.clock.monotonic()) + 1 : 1
    this.#owedTimer = this.#options.clock.after(waitMs, () => {
      this.#owedTimer = undefined
      if (this.#owed.size > 0 && (this.#state === 'idle' || this.#state === 'down')) this.#open()
    })
  }

  /** A written delivery is given up by who waited for it: its answer may still come on this stream. */
  #expectLate(id: number, entry: Entry): void {
    this.#late.set(id, { deviceId: entry.deviceId, messageId: entry.messageId })
    if (this.#late.size <= lateCountMax) return
    const oldest = this.#late.keys().next().value
    if (oldest !== undefined) this.#late.delete(oldest)
  }

  /** Ends the stream and the connection; whatever is unanswered is lost. */
  close(): void {
    this.#ending = true
    this.#idleTimer?.cancel()
    this.#owedTimer?.cancel()
    this.#owedTimer = undefined
    this.#owed.clear()
    this.#stream?.end()
    this.#loseAll('unreachable')
    this.#disconnect()
    if (this.#state !== 'gone') this.#state = 'idle'
  }

  /** Something waits: make sure that a stream takes it. */
  #nudge(): void {
    switch (this.#state) {
      case 'gone':
        setImmediate(() => this.#loseAll('gone'))
        return
      case 'down':
        if (this.#options.clock.monotonic() < this.#retryAt) {
          // Failing at once keeps dispatch's own back-off in charge, and lets it look the device up meanwhile.
          setImmediate(() => {
            if (this.#state === 'down') this.#loseAll('unreachable')
          })
          return
        }
        this.#open()
        return
      case 'idle':
        this.#open()
        return
      case 'opening':
        return
      case 'open':
        this.#stream?.wake()
    }
  }

  #open(): void {
    this.#state = 'opening'
    this.#ending = false
    const stream = new Stream()
    this.#stream = stream
    void this.#run(stream)
  }

  async #run(stream: Stream): Promise<void> {
    const { clock, limits, log } = this.#options
    const openTimer = clock.after(limits.openTimeoutMs, () => stream.end())
    let gone = false
    let cause = 'ended'
    try {
      this.#connection ??= connectGrpc({
        addresses: this.address,
        log,
        clock,
        random: this.#options.random,
        metrics: this.#options.metrics,
      })
      const client = this.#connection.client(EdgeServiceDefinition)
      const answers = client.deliver(this.#requests(stream), {
        metadata: Metadata({ 'edge-id': this.edgeId }),
        signal: stream.abort.signal,
        // The edge sends its header once it has found the call to be meant for it; before that nothing is handed over.
        onHeader: () => {
          openTimer.cancel()
          if (this.#state !== 'opening') return
          this.#state = 'open'
          this.#backoff.reset()
          this.#lastTraffic = clock.monotonic()
          this.#watchIdle(limits.idleTimeoutMs)
          this.#payOwed()
          stream.wake()
        },
      })
      for await (const answer of answers) this.#take(answer)
    } catch (error) {
      const failure = callErrorOf(error)
      gone = failure.reason === 'EDGE_RESTARTED'
      cause = gone ? 'gone' : 'failed'
      if (!this.#ending) log.debug('stream to edge failed', { edge_id: this.edgeId, address: this.address, cause: error })
    } finally {
      openTimer.cancel()
      this.#idleTimer?.cancel()
      stream.end() // ends the request iterator too
      if (this.#stream === stream) this.#stream = undefined
    }
    this.#streamEnds.inc({ cause })
    const wasOpen = this.#state === 'open'
    if (gone) this.#state = 'gone'
    else if (this.#ending || (wasOpen && cause === 'ended')) this.#state = 'idle'
    else {
      this.#state = 'down'
      this.#retryAt = clock.monotonic() + this.#backoff.next()
    }
    if (this.#state !== 'idle' || this.#ending) this.#disconnect()
    this.#late.clear()
    if (gone) this.#owed.clear()
    this.#loseAll(gone ? 'gone' : 'unreachable')
    this.#payOwed()
  }

  async *#requests(stream: Stream): AsyncGenerator<DeliverRequest> {
    while (!stream.abort.signal.aborted && !this.#ending) {
      if (this.#state === 'open' && this.#sendable()) {
        this.#lastTraffic = this.#options.clock.monotonic()
        yield this.#frame()
      } else {
        await stream.sleep()
      }
    }
  }

  #sendable(): boolean {
    const { limits } = this.#options
    return (
      this.#unsentAsks.length > 0 ||
      (this.#high.waiting.size > 0 && this.#high.hasRoom(limits)) ||
      (this.#rest.waiting.size > 0 && this.#rest.hasRoom(limits))
    )
  }

  /** Builds one frame of what may go out now, HIGH first. */
  #frame(): DeliverRequest {
    const { clock, limits } = this.#options
    const frames = this.#unsentAsks.splice(0, frameCountMax).map((ask) => ask.frame)
    const deliveries: Delivery[] = []
    let bytes = 0
    for (const window of [this.#high, this.#rest]) {
      for (const id of window.waiting) {
        if (deliveries.length >= frameCountMax || bytes >= frameBytesMax || !window.hasRoom(limits)) break
        const entry = this.#entries.get(id)
        window.waiting.delete(id)
        if (!entry) continue
        entry.stage = 'sent'
        entry.timer.cancel()
        entry.timer = clock.after(limits.firstOutcomeTimeoutMs, () => this.#lose(id))
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
    return {
      deliveries,
      inboxReady: frames.flatMap((frame) => ('poke' in frame ? [frame.poke] : [])),
      closeSessions: frames.flatMap((frame) => ('close' in frame ? [frame.close] : [])),
    }
  }

  #take(answer: DeliverResponse): void {
    this.#lastTraffic = this.#options.clock.monotonic()
    for (const outcome of answer.outcomes) {
      const entry = this.#entries.get(outcome.deliveryId)
      if (!entry) {
        this.#takeLate(outcome)
        continue
      }
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
    for (const { closeId, result } of answer.closeSessionAnswers) this.#settleAsk(closeId, result)
    for (const { pokeId, result } of answer.inboxReadyAnswers) this.#settleAsk(pokeId, result)
    if (this.#sendable()) this.#stream?.wake()
  }

  /** An answer that nobody waits for: what was stored meanwhile must go, and the state be recorded. */
  #takeLate(outcome: Outcome): void {
    this.#lateOutcomes.inc()
    const late = this.#late.get(outcome.deliveryId)
    if (!late) return
    const { kind } = outcome
    if (kind !== OutcomeKind.ACKNOWLEDGED && kind !== OutcomeKind.NACKED && kind !== OutcomeKind.RESULT) return
    if (kind !== OutcomeKind.ACKNOWLEDGED) this.#late.delete(outcome.deliveryId)
    this.#options.onLateOutcome?.({ ...late, outcome })
  }

  #leaveWindow(entry: Entry): void {
    entry.window.count--
    entry.window.bytes -= entry.delivery.byteCount
  }

  #remove(id: number, entry: Entry): void {
    this.#entries.delete(id)
    entry.timer.cancel()
    entry.window.waiting.delete(id)
    if (entry.stage === 'sent') {
      this.#leaveWindow(entry)
      if (this.#sendable()) this.#stream?.wake()
    }
  }

  /** Time is up for one delivery. */
  #lose(id: number): void {
    const entry = this.#entries.get(id)
    if (!entry) return
    const { stage } = entry
    this.#remove(id, entry)
    entry.delivery.onLost(stage === 'waiting' ? 'unreachable' : 'unknown')
  }

  /** The stream is over: nobody will answer any more. */
  #loseAll(unsent: 'unreachable' | 'gone'): void {
    for (const [id, entry] of [...this.#entries]) {
      const { stage } = entry
      this.#remove(id, entry)
      entry.delivery.onLost(stage === 'waiting' ? unsent : 'unknown')
    }
    for (const id of [...this.#asks.keys()]) this.#settleAsk(id, unsent === 'gone' ? 'gone' : 'unanswered')
  }

  #settleAsk(id: number, answer: number | 'unanswered' | 'gone'): void {
    const ask = this.#asks.get(id)
    if (!ask) return
    this.#asks.delete(id)
    ask.timer.cancel()
    const place = this.#unsentAsks.indexOf(ask)
    if (place >= 0) this.#unsentAsks.splice(place, 1)
    ask.settle(answer)
  }

  /** Ends the stream once there has been no traffic for the idle time. */
  #watchIdle(delayMs: number): void {
    const { clock, limits } = this.#options
    this.#idleTimer?.cancel()
    this.#idleTimer = clock.after(delayMs, () => {
      const restMs = this.#lastTraffic + limits.idleTimeoutMs - clock.monotonic()
      if (restMs > 0 || this.#entries.size > 0 || this.#asks.size > 0) return this.#watchIdle(restMs > 0 ? restMs + 1 : 1_000)
      this.#ending = true
      this.#stream?.wake()
    })
  }

  #disconnect(): void {
    const connection = this.#connection
    this.#connection = undefined
    connection?.close()
  }
}
