import { InboxReadyResult, type Outcome, OutcomeKind } from '../../../gen/push/internal/v1/edge.ts'
import type { InboxEntry } from '../../../gen/push/internal/v1/inbox.ts'
import type { Receipt } from '../../../gen/push/internal/v1/queue.ts'
import { QueuedMessage } from '../../../gen/push/internal/v1/queue.ts'
import { EdgeLeaseState, type SessionRow } from '../../../gen/push/internal/v1/registry.ts'
import type { LateAnswer } from '../../../gen/push/internal/v1/uplink.ts'
import { type Message, Priority } from '../../../gen/push/v1/message.ts'
import { PushError } from '../../../service-kit/errors.ts'
import { createMetrics } from '../../../service-kit/metrics.ts'
import { seededRandom } from '../../../service-kit/random.ts'
import { recordingLog } from '../../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../../service-kit/testing/steered-clock.ts'
import { checkMessage } from '../../api/message-check.ts'
import type { Lane, MessageQueue, PartitionLease, QueueRecord } from '../../queue/message-queue.ts'
import { createDispatcher, type DispatchLimits } from '../dispatcher.ts'
import type { EdgeLinks } from '../edge-links.ts'
import type { Inbox } from '../inbox.ts'
import type { Link, LinkDelivery, LinkState, PokeAnswer, SessionName } from '../link.ts'
import type { FoundRoutes, Lookups } from '../lookups.ts'
import { createOfflinePath } from '../offline-path.ts'
import { createRouteCache } from '../route-cache.ts'
import { reasonName, stateName } from '../state-names.ts'
import { createStateRecorder } from '../state-recorder.ts'

/** One delivery that has reached a scripted link. */
export interface Offered {
  readonly delivery: LinkDelivery
  readonly messageId: string
  readonly accountId: string
  readonly redelivered: boolean
  forgotten: boolean
}

/** A link that hands over at once and answers when the test says so. */
export class ScriptedLink implements Link {
  state: LinkState = 'open'
  readonly offered: Offered[] = []
  /** While true deliveries wait in the window and are not handed over. */
  stuck = false
  readonly #byId = new Map<number, Offered>()
  #lastId = 0

  deliver(delivery: LinkDelivery): number {
    const id = ++this.#lastId
    if (this.state === 'down' || this.state === 'gone') {
      const how = this.state === 'gone' ? 'gone' : 'unreachable'
      setImmediate(() => delivery.onLost(how))
      return id
    }
    const built = delivery.build(id)
    const offered: Offered = {
      delivery,
      messageId: built.messageId,
      accountId: built.accountId,
      redelivered: built.redelivered,
      forgotten: false,
    }
    this.offered.push(offered)
    this.#byId.set(id, offered)
    if (!this.stuck) setImmediate(() => offered.forgotten || delivery.onSent())
    return id
  }

  forget(id: number): void {
    const offered = this.#byId.get(id)
    if (offered) offered.forgotten = true
  }

  closeSession(): Promise<'unanswered'> {
    return Promise.resolve('unanswered')
  }

  /** What pokes are answered, one after the other; the last one again and again. */
  pokeAnswers: PokeAnswer[] = [InboxReadyResult.ACCEPTED]
  readonly poked: string[] = []
  readonly owed: string[] = []
  unansweredCount = 0
  /** False: it has left something unanswered. */
  answers = true

  get answering(): boolean {
    return this.answers && this.state !== 'down'
  }

  poke({ sessionId }: SessionName): Promise<PokeAnswer> {
    this.poked.push(sessionId)
    return Promise.resolve((this.pokeAnswers.length > 1 ? this.pokeAnswers.shift() : this.pokeAnswers[0]) ?? 'unanswered')
  }

  owePoke({ sessionId }: SessionName): void {
    this.owed.push(sessionId)
  }

  /** The newest delivery of a message that is still waited for. */
  last(messageId: string): Offered {
    const offered = this.offered.findLast((candidate) => candidate.messageId === messageId && !candidate.forgotten)
    if (!offered)
      throw new Error(`message ${messageId} was not offered; offered were ${this.offered.map((one) => one.messageId).join(', ')}`)
    return offered
  }

  say(messageId: string, kind: OutcomeKind, more: Partial<Outcome> = {}): void {
    this.last(messageId).delivery.onOutcome({
      deliveryId: 0,
      kind,
      final: false,
      writtenTime: kind === OutcomeKind.WRITTEN ? 1 : 0,
      answeredTime: 0,
      sessionId: 's',
      detail: '',
      result: undefined,
      ...more,
    })
  }

  lose(messageId: string, how: 'unknown' | 'unreachable' | 'gone'): void {
    const offered = this.last(messageId)
    offered.forgotten = true
    offered.delivery.onLost(how)
  }
}

/** A lease whose commits and pauses a test reads. */
export class ScriptedLease implements PartitionLease {
  readonly lane: Lane
  readonly partition: number
  readonly generation: number
  readonly commits: bigint[] = []
  paused = false
  readonly #ended = new AbortController()

  constructor(lane: Lane, partition: number, generation = 1) {
    this.lane = lane
    this.partition = partition
    this.generation = generation
  }
  get ended(): AbortSignal {
    return this.#ended.signal
  }
  commitBelow(offset: bigint): void {
    if (!this.ended.aborted) this.commits.push(offset)
  }
  pause(): void {
    this.paused = true
  }
  resume(): void {
    this.paused = false
  }
  end(): void {
    this.#ended.abort()
  }
}

/** A dispatcher between scripted neighbours, in steered time. */
export function dispatchBench(limits: Partial<DispatchLimits> = {}) {
  const clock = new SteeredClock()
  const random = seededRandom(7)
  const metrics = createMetrics()
  const log = recordingLog()
  const links = new Map<string, ScriptedLink>()
  const rows = new Map<string, { row: SessionRow; state: EdgeLeaseState }[]>()
  const accounts = new Map<string, string[]>()
  const deadLetters: { key: string; value: Uint8Array }[] = []
  const unregistered: SessionRow[] = []
  const registry = {
    down: false,
    /** Look-ups wait for it. */
    held: undefined as Promise<void> | undefined,
    finds: [] as { deviceId: string; fresh: boolean; allRows: boolean }[],
    pageSize: 3,
  }
  const cache = createRouteCache({ clock, random, metrics, entryCountMax: 1_000, entryTtlMs: 300_000 })
  let deadLetterFails = 0

  const lookups: Lookups = {
    async find(deviceId, { fresh = false, allRows = false } = {}): Promise<FoundRoutes> {
      const remembered = fresh || allRows ? undefined : cache.get(deviceId)
      if (remembered)
        return { routes: [{ row: remembered, edgeState: EdgeLeaseState.UNSPECIFIED }], more: false, remembered: true }
      registry.finds.push({ deviceId, fresh, allRows })
      if (registry.held) await registry.held
      if (registry.down) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
      const all = rows.get(deviceId) ?? []
      const shown = allRows ? all : all.slice(0, registry.pageSize)
      const [newest] = shown
      if (newest) cache.set(newest.row)
      return {
        routes: shown.map(({ row, state }) => ({ row, edgeState: state })),
        more: all.length > shown.length,
        remembered: false,
      }
    },
    async accountDevices(accountId, pageToken) {
      if (registry.down) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
      const devices = accounts.get(accountId) ?? []
      const from = pageToken === '' ? 0 : Number(pageToken)
      const next = from + registry.pageSize
      return { deviceIds: devices.slice(from, next), nextPageToken: next < devices.length ? String(next) : '' }
    },
    async unregister(row) {
      if (registry.held) await registry.held
      if (registry.down) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
      unregistered.push(row)
      rows.set(
        row.deviceId,
        (rows.get(row.deviceId) ?? []).filter(({ row: other }) => other.sessionId !== row.sessionId),
      )
    },
  }

  const link = (edgeId: string): ScriptedLink => {
    const known = links.get(edgeId)
    if (known) return known
    const created = new ScriptedLink()
    links.set(edgeId, created)
    return created
  }
  const edgeLinks: EdgeLinks = {
    to: ({ edgeId }) => link(edgeId),
    isGone: ({ edgeId }, lapsed) => link(edgeId).state === 'gone' || (lapsed && link(edgeId).state === 'down'),
    someAnswers: () => [...links.values()].some(({ state, answering }) => state === 'open' && answering),
    close: () => undefined,
  }
  const queue: Pick<MessageQueue, 'publishDeadLetter'> = {
    async publishDeadLetter(key, value) {
      if (deadLetterFails-- > 0) throw new PushError('QUEUE_UNAVAILABLE', 'down')
      deadLetters.push({ key, value })
    },
  }
  /** What is in the inboxes, what is recorded, and what late answers came; `fails` makes the next calls fail, `held` lets stores wait. */
  const inboxes = {
    held: undefined as PromiseWithResolvers<void> | undefined,
    entries: [] as InboxEntry[],
    full: false,
    fails: 0,
    evictions: [] as { entry: InboxEntry; replaced: boolean }[],
  }
  const receipts = { recorded: [] as Receipt[], fails: 0, held: undefined as Promise<void> | undefined }
  const late: LateAnswer[] = []
  const left: string[] = []
  const steps: string[] = []
  const inbox: Inbox = {
    async store(entry) {
      await inboxes.held?.promise
      if (inboxes.fails-- > 0) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
      steps.push('store')
      if (!inboxes.full) inboxes.entries.push(entry)
      const evictions = inboxes.evictions.splice(0)
      return { result: inboxes.full ? { $case: 'full', value: {} } : { $case: 'stored', value: {} }, evictions }
    },
    read: async (deviceId) => ({ entries: inboxes.entries.filter((entry) => entry.deviceId === deviceId), replaced: [] }),
    async remove({ messageId }) {
      inboxes.entries = inboxes.entries.filter((entry) => entry.message?.messageId !== messageId)
    },
  }
  const recorder = createStateRecorder(
    {
      async record(receipt) {
        if (receipts.held) await receipts.held
        if (receipts.fails-- > 0) throw new PushError('REGISTRY_UNAVAILABLE', 'down')
        receipts.recorded.push(receipt)
      },
    },
    clock,
  )
  const directory = { get: () => undefined, liveCount: () => 1, known: true, close: () => undefined }
  const dispatcher = createDispatcher({
    queue,
    topicOf: (lane) => `push.${lane}`,
    cache,
    lookups,
    links: edgeLinks,
    directory,
    recorder,
    lateAnswers: {
      async take(answer) {
        late.push(answer)
      },
      takeSoon: (answer) => late.push(answer),
    },
    leftAccounts: { tell: (accountId, deviceId) => left.push(`${deviceId} has left ${accountId}`) },
    offlinePath: createOfflinePath({
      inbox,
      recorder,
      lookups: {
        ...lookups,
        find(deviceId, how) {
          if (steps.length > 0) steps.push('read sessions')
          return lookups.find(deviceId, how)
        },
      },
      links: edgeLinks,
      directory,
      clock,
      random,
      log,
      metrics,
      pokeTimeoutMs: 15_000,
    }),
    limits: {
      holdTimeMs: 60_000,
      ackTimeoutMs: 10_000,
      inFlightMax: 100,
      directInFlightMax: 10,
      directAccountDevicesMax: 8,
      ...limits,
    },
    clock,
    random,
    log,
    metrics,
  })

  /** Puts a device's rows in place, newest first; `edge:session` each, or `edge:session:state`. */
  const connect = (deviceId: string, ...routes: string[]) =>
    rows.set(
      deviceId,
      routes.map((route, index) => {
        const [edgeId = '', sessionId = '', state = 'LIVE'] = route.split(':')
        return {
          row: {
            deviceId,
            epoch: 1_000 - index,
            sessionId,
            edgeId,
            edgeAddress: `${edgeId}:1`,
            accountId: '',
            protocol: 'push.v1.json',
            connectedTime: 1,
          },
          state: state === 'LAPSED' ? EdgeLeaseState.LAPSED : state === 'SUSPECT' ? EdgeLeaseState.SUSPECT : EdgeLeaseState.LIVE,
        }
      }),
    )

  const queued = (messageId: string, deviceId: string, message: Partial<Message> = {}): QueuedMessage => {
    const checked = checkMessage({
      ...emptyMessage(),
      target: { $case: 'deviceId', value: deviceId },
      ...message,
    })
    const acceptTime = clock.nowMicros()
    return {
      messageId,
      message: checked.message,
      acceptTime,
      expireTime: acceptTime + checked.lifeMs * 1_000,
      principal: 'p',
      attempt: 0,
    }
  }

  const record = (lease: PartitionLease, offset: number, value: QueuedMessage | Uint8Array): QueueRecord => ({
    lane: lease.lane,
    partition: lease.partition,
    offset: BigInt(offset),
    key: value instanceof Uint8Array ? 'k' : (value.message?.target?.value ?? ''),
    value: value instanceof Uint8Array ? value : QueuedMessage.encode(value).finish(),
    timestampMs: clock.now(),
  })

  return {
    clock,
    metrics,
    log,
    registry,
    accounts,
    unregistered,
    deadLetters,
    inboxes,
    recorder,
    links: edgeLinks,
    receipts,
    late,
    left,
    /** The order of what the offline path did. */
    steps,
    /** What was recorded, as `id STATE REASON`, in order. */
    recorded: () =>
      receipts.recorded.map(({ messageId, outcome }) =>
        `${messageId} ${stateName(outcome?.state ?? 0)} ${reasonName(outcome?.reason ?? 0)}`.trim(),
      ),
    dispatcher,
    connect,
    link,
    queued,
    lease(partition = 0, generation = 1, lane: Lane = 'normal') {
      const lease = new ScriptedLease(lane, partition, generation)
      dispatcher.onLeaseStarted?.(lease)
      return lease
    },
    endLease(lease: ScriptedLease) {
      lease.end()
      dispatcher.onLeaseEnded?.(lease)
    },
    /** Hands records over: message by offset. Lets what follows settle. */
    async hand(lease: PartitionLease, records: [offset: number, value: QueuedMessage | Uint8Array][]) {
      dispatcher.onRecords(
        lease,
        records.map(([offset, value]) => record(lease, offset, value)),
      )
      await settle()
    },
    failDeadLetters(times: number) {
      deadLetterFails = times
    },
    /** What was settled, as `id STATE REASON`, in order. */
    settled: () =>
      log.withPhrase('message settled').map(({ facts }) => `${facts.message_id} ${facts.state} ${facts.reason}`.trim()),
  }
}

/** A message with nothing set. */
export function emptyMessage(): Message {
  return {
    idempotencyKey: '',
    target: undefined,
    messageClass: 0,
    name: '',
    payload: Buffer.alloc(0),
    contentType: '',
    priority: Priority.UNSPECIFIED,
    ttl: undefined,
    collapseKey: '',
    confirm: 0,
    resultTimeout: undefined,
    receipts: 0,
    traceparent: '',
    signature: undefined,
  }
}

/** Lets promises and immediates run. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 6; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
}
