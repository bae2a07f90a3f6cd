import { Metadata } from 'nice-grpc'
import {
  type CloseSession,
  type CloseSessionResult,
  type DeliverRequest,
  type DeliverResponse,
  EdgeServiceDefinition,
  type InboxReadyResult,
} from '../../gen/push/internal/v1/edge.ts'
import { type Backoff, createBackoff } from '../../service-kit/backoff.ts'
import { PlainTextError, type ServiceTransport } from '../../service-kit/client-transport.ts'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import type { CloseAnswer, EdgeLinkLimits, LateOutcome, Link, LinkDelivery, LinkState, PokeAnswer, SessionName } from './link.ts'
import { LinkAsks } from './link-asks.ts'
import { LinkDeliveries } from './link-deliveries.ts'

/** What a link needs. */
export interface EdgeLinkOptions {
  readonly edgeId: string
  readonly address: string
  readonly limits: EdgeLinkLimits
  /** How the edge is dialled. Default: in plain text, on this machine. */
  readonly transport?: ServiceTransport | undefined
  /** Hears the device's answers to deliveries that nobody waits for any more. */
  readonly onLateOutcome?: ((late: LateOutcome) => void) | undefined
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** Deliveries in one frame: more saves nothing and adds latency. */
const frameCountMax = 64
const frameBytesMax = 256 * 1024
/** Owed pokes that an edge may have. Above it all its sessions are poked. */
export const owedCountMax = 65_536
/** Owed pokes that are unanswered on a stream at once: the rest wait for their answers, so that a stream that breaks leaves few to be put back. */
export const owedAtOnceMax = 1_000
/** How long an owed poke waits for its answer, in ms, before it is owed again. */
const owedPokeTimeoutMs = 15_000

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

/**
 * The router's stream to one edge. Opened when something is first sent, closed after idling, opened again after it breaks. It knows nothing
 * of messages and decides nothing: it says what was heard, and when nothing will be.
 */
export class EdgeLink implements Link {
  readonly edgeId: string
  readonly address: string
  readonly #options: EdgeLinkOptions
  readonly #backoff: Backoff
  readonly #deliveries: LinkDeliveries
  readonly #asks: LinkAsks
  /** Sessions whose poke is owed, by session id. */
  readonly #owed = new Map<string, SessionName>()
  /** There were too many: all sessions of the edge are owed one. */
  #owesAll = false
  /** Owed pokes that are on the stream, and not answered. */
  #payingCount = 0
  #owedTimer: Timer | undefined
  readonly #owedAll
  readonly #streamEnds
  #connection: GrpcConnection | undefined
  #state: LinkState = 'idle'
  #silent = false
  #failed = false
  #retryAt = 0
  #lastId = 0
  #idleTimer: Timer | undefined
  #lastTraffic = 0
  #stream: Stream | undefined
  #ending = false
  #closed = false
  #toldPlainText = false

  constructor(options: EdgeLinkOptions) {
    this.edgeId = options.edgeId
    this.address = options.address
    this.#options = options
    this.#backoff = createBackoff({ baseMs: 50, capMs: 2_000, random: options.random })
    this.#asks = new LinkAsks(options.clock)
    this.#deliveries = new LinkDeliveries({
      ...options,
      onLateOutcome: options.onLateOutcome,
      onRoom: () => this.#stream?.wake(),
      onSilence: () => {
        this.#silent = true
      },
    })
    this.#owedAll = options.metrics.counter(
      'push_router_owed_pokes_full_total',
      'Times that an edge had too many owed pokes, and all its sessions were to look into their inboxes instead',
    )
    this.#streamEnds = options.metrics.counter('push_router_edge_stream_ends_total', 'Streams to edges that ended, by cause', [
      'cause',
    ])
  }

  get state(): LinkState {
    return this.#state
  }

  get answering(): boolean {
    return !this.#silent
  }

  /** The last attempt to open a stream failed, and none has succeeded since. */
  get unreachable(): boolean {
    return this.#state === 'down' || (this.#state === 'opening' && this.#failed)
  }

  /** It has no stream, and nothing for one. */
  get unused(): boolean {
    return this.#state === 'idle' && this.#deliveries.size === 0 && this.#asks.size === 0 && !this.#owes
  }

  get unansweredCount(): number {
    return this.#deliveries.size
  }

  deliver(delivery: LinkDelivery): number {
    const id = ++this.#lastId
    this.#deliveries.add(id, delivery)
    this.#nudge()
    return id
  }

  forget(id: number): void {
    this.#deliveries.forget(id)
  }

  closeSession(request: Omit<CloseSession, 'closeId'>, timeoutMs: number): Promise<CloseAnswer> {
    const closeId = ++this.#lastId
    const answer = this.#asks.add<CloseSessionResult>(closeId, { close: { ...request, closeId } }, timeoutMs)
    this.#nudge()
    return answer
  }

  poke({ deviceId, sessionId }: SessionName, timeoutMs: number): Promise<PokeAnswer> {
    const pokeId = ++this.#lastId
    const answer = this.#asks.add<InboxReadyResult>(pokeId, { poke: { deviceId, sessionId, pokeId } }, timeoutMs)
    this.#nudge()
    return answer
  }

  get #owes(): boolean {
    return this.#owesAll || this.#owed.size > 0
  }

  owePoke(session: SessionName): void {
    if (this.#state === 'gone' || this.#closed) return
    // What is still to be sent to all is for this one as well.
    if (!this.#owesAll) this.#owed.set(session.sessionId, session)
    if (this.#owed.size > owedCountMax) {
      this.#owedAll.inc()
      this.#oweAll()
    }
    this.#payOwed()
  }

  #oweAll(): void {
    this.#owesAll = true
    this.#owed.clear()
  }

  #pokeAll(): void {
    this.#owesAll = false
    const pokeId = ++this.#lastId
    const answer = this.#asks.add<InboxReadyResult>(pokeId, { pokeAll: { pokeId } }, owedPokeTimeoutMs)
    void answer.then((heard) => {
      if (heard !== 'unanswered' || this.#state === 'gone' || this.#closed) return
      this.#oweAll()
      this.#payOwed()
    })
    this.#nudge()
  }

  #forgetOwed(): void {
    this.#owed.clear()
    this.#owesAll = false
  }

  /** Sends the owed pokes when a stream is open; else sees to it that one is opened when the back-off is over. */
  #payOwed(): void {
    if (!this.#owes || this.#state === 'gone') return
    if (this.#state === 'open') {
      if (this.#owesAll) this.#pokeAll()
      for (const session of this.#owed.values()) {
        if (this.#payingCount >= owedAtOnceMax) return
        this.#payingCount++
        this.#owed.delete(session.sessionId)
        // An answer of either kind pays it: a session that has ended leaves the mail to the one that registers next, which sees the hint.
        void this.poke(session, owedPokeTimeoutMs).then((answer) => {
          this.#payingCount--
          if (answer === 'unanswered') this.owePoke(session)
          else this.#payOwed()
        })
      }
      return
    }
    if (this.#state === 'opening' || this.#owedTimer !== undefined) return
    const waitMs = this.#state === 'down' ? Math.max(0, this.#retryAt - this.#options.clock.monotonic()) + 1 : 1
    this.#owedTimer = this.#options.clock.after(waitMs, () => {
      this.#owedTimer = undefined
      if (this.#owes && (this.#state === 'idle' || this.#state === 'down')) this.#open()
    })
  }

  /** Ends the stream and the connection; whatever is unanswered is lost. */
  close(): void {
    this.#ending = true
    this.#idleTimer?.cancel()
    this.#owedTimer?.cancel()
    this.#owedTimer = undefined
    this.#closed = true
    this.#forgetOwed()
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
        ...(this.#options.transport && { transport: this.#options.transport.toEdge(this.edgeId) }),
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
          this.#silent = false
          this.#failed = false
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
      // Nothing that time mends, unlike the rest: told once, though it is tried again and again.
      if (error instanceof PlainTextError) {
        if (!this.#toldPlainText)
          log.error(
            'edge is not dialled in plain text; give this router and the edge certificates, or set ROUTER_INSECURE=true',
            {
              edge_id: this.edgeId,
              address: this.address,
            },
          )
        this.#toldPlainText = true
      } else if (!this.#ending) log.debug('stream to edge failed', { edge_id: this.edgeId, address: this.address, cause: error })
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
      this.#silent = true
      this.#failed = true
      this.#retryAt = clock.monotonic() + this.#backoff.next()
    }
    if (this.#state !== 'idle' || this.#ending) this.#disconnect()
    if (gone) this.#forgetOwed()
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
    return this.#asks.sendable || this.#deliveries.sendable
  }

  /** Builds one frame of what may go out now. */
  #frame(): DeliverRequest {
    const asks = this.#asks.takeSendable(frameCountMax)
    return {
      deliveries: this.#deliveries.takeSendable(frameCountMax, frameBytesMax),
      inboxReady: asks.flatMap((frame) => ('poke' in frame ? [frame.poke] : [])),
      closeSessions: asks.flatMap((frame) => ('close' in frame ? [frame.close] : [])),
      inboxReadyAll: asks.flatMap((frame) => ('pokeAll' in frame ? [frame.pokeAll] : [])),
    }
  }

  #take(answer: DeliverResponse): void {
    this.#lastTraffic = this.#options.clock.monotonic()
    this.#silent = false
    for (const outcome of answer.outcomes) this.#deliveries.heard(outcome)
    for (const { closeId, result } of answer.closeSessionAnswers) this.#asks.settle(closeId, result)
    for (const { pokeId, result } of answer.inboxReadyAnswers) this.#asks.settle(pokeId, result)
  }

  /** The stream is over: nobody will answer any more. */
  #loseAll(unsent: 'unreachable' | 'gone'): void {
    this.#deliveries.loseAll(unsent)
    this.#asks.settleAll(unsent === 'gone' ? 'gone' : 'unanswered')
  }

  /** Ends the stream once there has been no traffic for the idle time. */
  #watchIdle(delayMs: number): void {
    const { clock, limits } = this.#options
    this.#idleTimer?.cancel()
    this.#idleTimer = clock.after(delayMs, () => {
      const restMs = this.#lastTraffic + limits.idleTimeoutMs - clock.monotonic()
      if (restMs > 0 || this.#deliveries.size > 0 || this.#asks.size > 0) return this.#watchIdle(restMs > 0 ? restMs + 1 : 1_000)
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
