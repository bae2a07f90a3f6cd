import type { DeviceSession } from '../../edge/device-session.ts'
import { createEdgeMetrics } from '../../edge/edge-metrics.ts'
import { createFlushCalls } from '../../edge/flush-calls.ts'
import { CloseReason } from '../../gen/push/internal/v1/edge.ts'
import { InboxServiceDefinition } from '../../gen/push/internal/v1/inbox.ts'
import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import {
  EdgeLeaseState,
  RegisterRequest,
  type RegisterResponse,
  RegistryServiceDefinition,
  UnregisterRequest,
} from '../../gen/push/internal/v1/registry.ts'
import type { FlushInboxRequest, FlushInboxResponse } from '../../gen/push/internal/v1/uplink.ts'
import { ReportRequest, ReportResult } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageClass, Priority, ReceiptMode } from '../../gen/push/v1/message.ts'
import { createInbox as createRegistryInbox } from '../../registry/inbox.ts'
import { createServiceLimits } from '../../registry/service-limits.ts'
import type { SessionStore } from '../../registry/session-store.ts'
import { createSessions } from '../../registry/sessions.ts'
import { createDispatcher, type Dispatcher } from '../../router/dispatch/dispatcher.ts'
import { createFlushes, type Flushes } from '../../router/dispatch/flush.ts'
import { createInbox } from '../../router/dispatch/inbox.ts'
import { createLookups } from '../../router/dispatch/lookups.ts'
import { createOfflinePath } from '../../router/dispatch/offline-path.ts'
import { createRouteCache } from '../../router/dispatch/route-cache.ts'
import { createStateRecorder } from '../../router/dispatch/state-recorder.ts'
import { ScriptedLease } from '../../router/dispatch/testing/dispatch-bench.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { Scheduler } from '../session-rules/scheduler.ts'
import { createSimulatedEdge, type SimulatedEdge } from '../session-rules/simulated-edge.ts'
import { ScheduledLink } from './scheduled-link.ts'
import type { Breakage, Cast, Ground } from './setting.ts'
import { clockInTurns, inboxStoreInTurns, inTurn, sessionStoreInTurns } from './turns.ts'

/** What was found wrong, by kind. */
export type Finding =
  | 'a message is lost'
  | 'mail waits beside an open session'
  | 'a message is not finished with the queue'
  | 'a session is neither open nor closed'
  | 'a hint was there before its message'

interface Stay {
  readonly letter: string
  readonly edge: SimulatedEdge
  session: DeviceSession | undefined
  takeBack: () => void
}

const metrics = createMetrics()
const limits = createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics })
const hourMicros = 3_600_000_000
/** Longer than any pause between two attempts at registering. */
const registerPauseMs = 600
/** A wait that nothing here may need. */
const farAwayMs = 1e9
const scope = { signal: new AbortController().signal }
const shared = { log: silentLog, metrics }

/** One device, its sessions on one edge or several, one registry and one router; all of them the real ones, between a store, sockets and streams that take turns. */
export class InboxPlane {
  // What goes wrong here goes wrong around the end of a session.
  readonly scheduler = new Scheduler({ unaskedShare: 4, faultShare: 4 })
  readonly #deviceId: string
  readonly #ground: Ground
  readonly #cast: Cast
  readonly #breakage: Breakage
  // Each run begins anew: the same choices give the same run.
  readonly #random = seededRandom(1)
  readonly #edges = new Map<string, SimulatedEdge>()
  readonly #links = new Map<string, ScheduledLink>()
  readonly #stays: readonly Stay[]
  readonly #flushes: Flushes
  readonly #dispatcher: Dispatcher
  readonly #lease = new ScriptedLease('normal', 0)
  readonly #published: QueuedMessage[] = []
  readonly #delivered = new Set<string>()
  readonly #inserted = new Set<number>()
  #hintAlone = false

  constructor(ground: Ground, cast: Cast, breakage: Breakage = {}) {
    this.#ground = ground
    this.#cast = cast
    this.#breakage = breakage
    this.#deviceId = ground.nextDevice()
    const router = this.#router()
    this.#flushes = router.flushes
    this.#dispatcher = router.dispatcher
    this.#dispatcher.onLeaseStarted?.(this.#lease)
    this.#stays = cast.edges.map((name, at) => this.#stay(String.fromCharCode(65 + at), this.#edge(name)))
    for (let at = 0; at < cast.messages; at++) this.#offerMessage(String.fromCharCode(77 + at))
  }

  /** Runs the schedule, lets everything come to rest, and says what is wrong then. */
  async run(choices: readonly number[]): Promise<Finding[]> {
    await this.scheduler.begin(this.#cast.prologue ?? [])
    await this.scheduler.follow(choices)
    await this.scheduler.finish()
    const { rows } = await this.#ground.inbox.read(this.#deviceId)
    const waiting = new Set(rows.map(({ messageId }) => messageId))
    const sessions = this.#stays.map(({ session }) => session)
    for (const edge of this.#edges.values()) edge.stop()
    const findings: Finding[] = []
    const find = (wrong: boolean, finding: Finding) => {
      if (wrong) findings.push(finding)
    }
    const lost = this.#published.some(({ messageId }) => !this.#delivered.has(messageId) && !waiting.has(messageId))
    find(lost, 'a message is lost')
    find(waiting.size > 0 && sessions.some((session) => session?.writes), 'mail waits beside an open session')
    find(this.#lease.commits.at(-1) !== BigInt(this.#published.length), 'a message is not finished with the queue')
    find(
      sessions.some((session) => !session?.writes && !session?.closed),
      'a session is neither open nor closed',
    )
    find(this.#hintAlone, 'a hint was there before its message')
    return findings
  }

  /** Registers and removals have a registry each, so that the trace can tell them apart. */
  #sessionsFor(caller: string, broken: (store: SessionStore) => SessionStore = (store) => store) {
    const { sessions, clock } = this.#ground
    const store = broken(sessionStoreInTurns(sessions, this.scheduler, caller))
    return createSessions({ store, edgeStateOf: () => EdgeLeaseState.LIVE, limits, clock, ...shared })
  }

  #router() {
    const clock = clockInTurns(this.#ground.clock, this.scheduler)
    const context = { clock, random: this.#random, ...shared }
    const registry = this.#registryConnection()
    const inbox = createInbox({ registry, metrics, callDeadlineMs: farAwayMs })
    const cache = createRouteCache({ ...context, entryCountMax: 100, entryTtlMs: farAwayMs })
    const lookups = createLookups({ registry, cache, metrics, callDeadlineMs: farAwayMs })
    const links = {
      to: ({ edgeId }: { edgeId: string }) => this.#link(edgeId),
      isGone: () => false,
      someAnswers: () => true,
      close() {},
    }
    const directory = { get: () => undefined, liveCount: () => 1, known: true, close() {} }
    const recorder = createStateRecorder({ record: async () => unexpected('a receipt is written') }, clock)
    const offlineLookups = this.#breakage.offlineLookups?.(lookups) ?? lookups
    const offlinePath = createOfflinePath({
      ...{ inbox, recorder, links, directory, ...context },
      lookups: offlineLookups,
      pokeTimeoutMs: farAwayMs,
    })
    const leftAccounts = { tell: () => unexpected('a device has left its account') }
    const dispatcher = createDispatcher({
      ...{ cache, lookups, links, directory, recorder, offlinePath, ...context },
      queue: { publishDeadLetter: () => unexpected('a message is undeliverable') },
      topicOf: (lane) => lane,
      lateAnswers: { take: () => unexpected('an answer is late'), takeSoon: () => unexpected('an answer is late') },
      leftAccounts,
      limits: {
        holdTimeMs: farAwayMs,
        ackTimeoutMs: farAwayMs,
        inFlightMax: 100,
        directInFlightMax: 1,
        directAccountDevicesMax: 1,
      },
    })
    const { deadLetter } = dispatcher
    const flushes = createFlushes({
      ...{ inbox, recorder, links, leftAccounts, deadLetter, ...context },
      ackTimeoutMs: farAwayMs,
      flushesMax: 100,
    })
    return { dispatcher, flushes }
  }

  /** The registry as the router reaches it, without a network. */
  #registryConnection(): GrpcConnection {
    const sessions = this.#sessionsFor('the router')
    const store = inboxStoreInTurns(this.#watchedInboxStore(), this.scheduler)
    const inbox = createRegistryInbox({
      ...{ limits, random: this.#random, clock: this.#ground.clock, ...shared },
      store: this.#breakage.inboxStore?.(store) ?? store,
      bounds: { messagesMax: 100, bytesMax: 524_288 },
      countedDevicesMax: 10,
    })
    const clients = new Map<unknown, object>([
      [InboxServiceDefinition, boundTo(inbox)],
      [RegistryServiceDefinition, boundTo(sessions)],
    ])
    return { client: (definition: unknown) => clients.get(definition) } as unknown as GrpcConnection
  }

  /** The ground's store, which notices hints whose message is not there yet. */
  #watchedInboxStore(): Ground['inbox'] {
    const { inbox } = this.#ground
    return {
      ...inbox,
      insert: (deviceId, row, ttlSeconds) => {
        this.#inserted.add(row.expireTime)
        return inbox.insert(deviceId, row, ttlSeconds)
      },
      writeHint: (deviceId, until, ttlSeconds) => {
        this.#hintAlone ||= !this.#inserted.has(until)
        return inbox.writeHint(deviceId, until, ttlSeconds)
      },
    }
  }

  #link(edgeId: string): ScheduledLink {
    const known = this.#links.get(edgeId)
    if (known !== undefined) return known
    const edge = [...this.#edges.values()].find((other) => other.edgeId === edgeId)
    if (edge === undefined) throw new Error(`there is no edge ${edgeId}`)
    const link = new ScheduledLink(this.scheduler, edge, this.#breakage)
    this.#links.set(edgeId, link)
    return link
  }

  #edge(name: string): SimulatedEdge {
    const known = this.#edges.get(name)
    if (known !== undefined) return known
    const edgeId = `edge-${name}-00000000`
    const calls = createFlushCalls({
      uplink: { flushInbox: (request) => this.#flushInbox(request as FlushInboxRequest) },
      edgeId,
      edgeAddress: '127.0.0.1:7402',
      concurrentMax: 8,
      clock: new SteeredClock(),
      log: silentLog,
      metrics: createEdgeMetrics(metrics),
    })
    const flushCalls = this.#breakage.flushCalls?.(calls) ?? calls
    const removals = this.#sessionsFor(`removal at ${name}`)
    const edge = createSimulatedEdge(edgeId, {
      registry: {
        register: (request) => this.#register(RegisterRequest.fromPartial(request)),
        unregister: async (request) => {
          await removals.unregister(UnregisterRequest.fromPartial(request), scope)
          return {}
        },
      },
      uplink: { report: (request) => this.#report(ReportRequest.fromPartial(request)) },
      metrics,
      removesRows: true,
      socketClosing: (letter, gone) => {
        this.#stayOf(letter).takeBack()
        this.scheduler.offer({ name: `${letter} socket is closed`, sort: 'must', run: gone })
      },
      flush: (flusher) => flushCalls.ask(flusher),
      frame: (letter, frame) => this.#frame(this.#stayOf(letter), JSON.parse(frame) as { type: string; id?: string }),
    })
    this.#edges.set(name, edge)
    return edge
  }

  #stay(letter: string, edge: SimulatedEdge): Stay {
    const stay: Stay = { letter, edge, session: undefined, takeBack: () => {} }
    const connect = () => {
      const { session, closeSocket } = edge.connect(this.#deviceId, letter)
      stay.session = session
      stay.takeBack = this.scheduler.offer({ name: `${letter} socket closes`, sort: 'may', run: closeSocket })
    }
    this.scheduler.offer({ name: `${letter} connects`, sort: 'must', run: connect })
    return stay
  }

  #offerMessage(messageId: string): void {
    const publish = () => {
      const offset = this.#published.length
      const acceptTime = this.#ground.clock.nowMicros() + offset
      const message = QueuedMessage.fromPartial({
        messageId,
        message: {
          target: { $case: 'deviceId', value: this.#deviceId },
          messageClass: MessageClass.USER,
          priority: Priority.NORMAL,
          confirm: ConfirmLevel.ACKNOWLEDGED,
          receipts: ReceiptMode.NONE,
          ttl: { seconds: 3600 },
          contentType: 'application/json',
          payload: Buffer.from('1'),
        },
        acceptTime,
        expireTime: acceptTime + hourMicros,
        principal: 'publisher',
      })
      this.#published.push(message)
      const { lane, partition } = this.#lease
      const value = QueuedMessage.encode(message).finish()
      const timestampMs = this.#ground.clock.now()
      this.#dispatcher.onRecords(this.#lease, [
        { lane, partition, offset: BigInt(offset), key: this.#deviceId, value, timestampMs },
      ])
    }
    this.scheduler.offer({ name: `${messageId} published`, sort: 'must', run: publish })
  }

  async #register(request: RegisterRequest) {
    const { letter, edge } = this.#stayOf(request.sessions[0]?.sessionId ?? '')
    const response = await this.#sessionsFor(letter, this.#breakage.registerStore).register(request, scope)
    return new Promise<RegisterResponse>((resolve, reject) => {
      const lost = () => {
        reject(new Error('no answer in time'))
        this.scheduler.offer({ name: `${letter} goes on`, sort: 'must', run: () => edge.clock.advance(registerPauseMs) })
      }
      const name = `${letter} told ${response.results[0]?.result?.$case}`
      this.scheduler.offer({ name, sort: 'must', run: () => resolve(response), faults: { 'the answer is lost': lost } })
    })
  }

  /** The router: each close is delivered once, whenever it pleases the scheduler. */
  async #report({ items }: ReportRequest) {
    const results = items.map(({ item }) => {
      if (item?.$case !== 'sessionReplaced') return unexpected(`an edge reports ${item?.$case}`)
      const { deviceId, sessionId, replacerSessionId, replacerEpoch } = item.value
      const close = {
        closeId: 1,
        deviceId,
        sessionId,
        reason: CloseReason.SUPERSEDED,
        replacerSessionId,
        replacerEpoch,
        detail: '',
      }
      return inTurn(this.scheduler, `${sessionId.charAt(0)} told to close`, async () => {
        await this.#stayOf(sessionId).edge.deliver({ closeSessions: [close] })
        return ReportResult.DONE
      })
    })
    return { results: await Promise.all(results) }
  }

  /** The router does not wait for the edge to hear: what it says is on its way while it goes on. */
  async *#flushInbox(request: FlushInboxRequest): AsyncIterable<FlushInboxResponse> {
    const letter = request.sessionId.charAt(0)
    await inTurn(this.scheduler, `${letter} flushes`, async () => {})
    const said = this.#flushes.flush(request)
    let next = said.next()
    for (;;) {
      const { value, done } = await next
      if (done || value === undefined) return
      next = said.next()
      yield await inTurn(this.scheduler, `${letter} hears of its flush`, async () => value)
    }
  }

  /** A device acknowledges every message, as long as its socket is open. */
  #frame({ letter, session }: Stay, frame: { readonly type: string; readonly id?: string }): void {
    const { id } = frame
    if (frame.type !== 'message' || id === undefined) return
    this.#delivered.add(id)
    const acknowledge = () => {
      if (session !== undefined && !session.closed) session.receive(JSON.stringify({ type: 'ack', ids: [id] }))
    }
    this.scheduler.offer({ name: `${letter} acknowledges ${id}`, sort: 'must', run: acknowledge })
  }

  #stayOf(sessionId: string): Stay {
    const found = this.#stays.find(({ letter }) => sessionId.startsWith(letter))
    if (found === undefined) throw new Error(`nobody has the session ${sessionId}`)
    return found
  }
}

/** Calls as a client has them: with bounds in place of a scope. */
function boundTo<Request, Response>(service: object): object {
  return Object.fromEntries(
    Object.entries(service as Record<string, (request: Request, scope: unknown) => Promise<Response>>).map(([name, call]) => [
      name,
      (request: Request) => call(request, scope),
    ]),
  )
}

function unexpected(what: string): never {
  throw new Error(`${what}, which nothing here asks for`)
}
