import type { DeviceSession } from '../../edge/device-session.ts'
import { deliveryOf } from '../../edge/testing/deliveries.ts'
import { CloseReason, type CloseSession, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import {
  EdgeLeaseState,
  LookupRequest,
  RegisterRequest,
  type RegisterResponse,
  type SessionRow,
  UnregisterRequest,
} from '../../gen/push/internal/v1/registry.ts'
import { ReportRequest, ReportResult, type SessionReplaced } from '../../gen/push/internal/v1/uplink.ts'
import { createServiceLimits } from '../../registry/service-limits.ts'
import { compareRows, type SessionStore } from '../../registry/session-store.ts'
import { createSessions, type Sessions } from '../../registry/sessions.ts'
import { shiftedClock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { type Caller, callers, type StoreHistory, scheduledStore } from './scheduled-store.ts'
import { Scheduler } from './scheduler.ts'
import type { Breakage, Cast, Ground } from './setting.ts'
import { createSimulatedEdge, registerTimeoutMs, type SimulatedEdge, wheelTickMs } from './simulated-edge.ts'
import { type Finding, type JudgedStay, judge } from './verdict.ts'

interface Stay extends JudgedStay {
  readonly letter: string
  readonly edge: SimulatedEdge
  session: DeviceSession | undefined
  attempts: number
  lastRegistry: number
  endedFromOutside: boolean
  takeBack: (() => void)[]
}

const metrics = createMetrics()
const limits = createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics })
/** How far the clocks of the two registries are apart. */
const clockOffsetMs = 5_000
/** Longer than any pause between two attempts of an edge. */
const pauseMs = 600

/** One device, its sessions on one edge or several, two registries over one store, and a router that carries closes. */
export class Plane {
  readonly scheduler = new Scheduler()
  readonly #deviceId: string
  readonly #store: SessionStore
  readonly #registries: readonly Sessions[]
  readonly #history: StoreHistory = { inserts: new Map(), removalReads: new Map(), registerDeletes: [], lowInserts: [] }
  readonly #edges = new Map<string, SimulatedEdge>()
  readonly #stays: readonly Stay[]
  readonly #cast: Cast
  readonly #breakage: Breakage
  #closes = 0
  #newerClosed = false
  #removals = 0

  constructor(ground: Ground, cast: Cast, breakage: Breakage = {}) {
    this.#cast = cast
    this.#breakage = breakage
    this.#deviceId = ground.nextDevice()
    const { store, clock } = ground
    this.#store = breakage.store?.(ground) ?? store
    const scheduled = scheduledStore(this.#store, this.scheduler, this.#history)
    this.#registries = [clock, shiftedClock(clock, clockOffsetMs)].map((ownClock) => {
      const create = (store: SessionStore) =>
        createSessions({ store, edgeStateOf: () => EdgeLeaseState.LIVE, limits, clock: ownClock, log: silentLog, metrics })
      return breakage.registry?.(scheduled, create) ?? create(scheduled)
    })
    this.#stays = cast.edges.map((name, at) => this.#stay(String.fromCharCode(65 + at), this.#edge(name)))
  }

  /** Runs the schedule, lets everything come to rest, and says what is wrong then. */
  async run(choices: readonly number[]): Promise<Finding[]> {
    await this.scheduler.follow(choices)
    await this.scheduler.finish()
    const { rows } = await this.#store.read(this.#deviceId, 1_000)
    const findings = judge({ stays: this.#stays, rows, history: this.#history, newerClosed: this.#newerClosed })
    findings.push(...(await this.#heal(rows.length)))
    for (const edge of this.#edges.values()) edge.stop()
    return findings
  }

  #edge(name: string): SimulatedEdge {
    const known = this.#edges.get(name)
    if (known !== undefined) return known
    const edge: SimulatedEdge = createSimulatedEdge(`edge-${name}-00000000`, {
      registry: {
        register: (request) => this.#register(edge, RegisterRequest.fromPartial(request)),
        unregister: (request) => this.#unregister(edge, UnregisterRequest.fromPartial(request)),
      },
      uplink: { report: (request) => this.#report(ReportRequest.fromPartial(request)) },
      metrics,
      removesRows: this.#breakage.rowsStay !== true,
      socketClosing: (letter, gone) => {
        this.#takeBack(this.#stayOf(letter))
        this.scheduler.offer({ name: `${letter} socket is closed`, sort: 'must', run: gone })
      },
    })
    this.#edges.set(name, edge)
    return edge
  }

  #stay(letter: string, edge: SimulatedEdge): Stay {
    const stay: Stay = {
      letter,
      edge,
      session: undefined,
      attempts: 0,
      lastRegistry: 0,
      endedFromOutside: false,
      takeBack: [],
    }
    stay.takeBack = [0, 1].map((registry) =>
      this.scheduler.offer({ name: `${letter} connects`, sort: 'must', run: () => this.#connect(stay, registry) }),
    )
    return stay
  }

  #connect(stay: Stay, registry: number): void {
    const { letter, edge } = stay
    this.#takeBack(stay)
    stay.lastRegistry = 1 - registry
    const { session, closeSocket } = edge.connect(this.#deviceId, letter)
    stay.session = session
    const socketCloses = () => {
      stay.endedFromOutside = true
      this.#takeBack(stay)
      closeSocket()
    }
    stay.takeBack.push(
      this.scheduler.offer({ name: `${letter} socket closes`, sort: 'may', run: socketCloses }),
      this.scheduler.offer({ name: `${letter} has no time left`, sort: 'may', run: () => this.#endTime(edge) }),
    )
  }

  /** One attempt, through the other registry than the one before. Its answer may be lost, and it may go on without its edge. */
  #register(edge: SimulatedEdge, request: RegisterRequest): Promise<RegisterResponse> {
    const stay = this.#stayOf(request.sessions[0]?.sessionId ?? '')
    const sessionId = request.sessions[0]?.sessionId ?? ''
    const registry = 1 - stay.lastRegistry
    stay.lastRegistry = registry
    stay.attempts++
    const name = `${stay.letter}${stay.attempts} at R${registry}`
    const caller: Caller = { name, call: 'register', sessionIds: [sessionId], heard: false }
    const deadline = new AbortController()
    return new Promise((resolve, reject) => {
      let waited = true
      const stopWaiting = () => {
        waited = false
        for (const back of takeBack) back()
      }
      const giveUp = () => {
        stopWaiting()
        reject(new Error('no answer in time'))
        this.#goOn(edge, stay)
      }
      const expire = () => {
        giveUp()
        deadline.abort(new Error('the deadline is over'))
      }
      const takeBack = [
        this.scheduler.offer({ name: `${name} is given up and goes on`, sort: 'may', run: giveUp }),
        this.scheduler.offer({ name: `${name} is given up and ends`, sort: 'may', run: expire }),
      ]
      const answer = (response: RegisterResponse) => {
        stopWaiting()
        caller.heard = response.results[0]?.result?.$case !== 'error'
        resolve(response)
        if (!caller.heard) this.#goOn(edge, stay)
      }
      const answered = (response: RegisterResponse) => {
        if (!waited) return
        takeBack.push(
          this.scheduler.offer({
            name: `${name} answers ${response.results[0]?.result?.$case}`,
            sort: 'must',
            run: () => answer(response),
            faults: { 'the answer is lost': giveUp },
          }),
        )
      }
      // A call whose deadline is over fails, and nobody waits for it any more.
      this.#call(caller, registry, (sessions) => sessions.register(request, { signal: deadline.signal })).then(answered, () => {})
    })
  }

  /** After a failed attempt: the pause before the next one passes, or the time for registering is over. */
  #goOn(edge: SimulatedEdge, stay: Stay): void {
    const timeEnds = () => this.#endTime(edge)
    const { letter, attempts } = stay
    if (attempts >= this.#cast.attemptsMax) {
      this.scheduler.offer({ name: `${letter} has no time left`, sort: 'must', run: timeEnds })
      return
    }
    const name = `${letter} tries again`
    const run = () => edge.clock.advance(pauseMs)
    this.scheduler.offer({ name, sort: 'must', run, faults: { 'too late': timeEnds } })
  }

  #endTime(edge: SimulatedEdge): Promise<void> {
    for (const stay of this.#stays) {
      if (stay.edge === edge && stay.session !== undefined && !stay.session.writes && !stay.session.closed) {
        stay.endedFromOutside = true
      }
    }
    // What wakes then finds the time over.
    edge.clock.stall(registerTimeoutMs + wheelTickMs)
    return edge.clock.advance(pauseMs)
  }

  #unregister(edge: SimulatedEdge, request: UnregisterRequest): Promise<Record<string, never>> {
    const letters = request.sessions.map(({ sessionId }) => this.#stayOf(sessionId).letter)
    const registry = this.#removals++ % 2
    const name = `removal of ${letters} at R${registry}`
    // Only those are read; the others are removed by key.
    const sessionIds = request.sessions.filter(({ epoch }) => epoch === 0).map(({ sessionId }) => sessionId)
    const caller: Caller = { name, call: 'unregister', sessionIds, heard: true }
    const { signal } = new AbortController()
    return new Promise((resolve, reject) => {
      const fail = (cause: unknown) => {
        reject(cause)
        this.scheduler.offer({ name: `${name} is repeated`, sort: 'must', run: () => edge.clock.advance(pauseMs) })
      }
      this.#call(caller, registry, (sessions) => sessions.unregister(request, { signal })).then(
        () =>
          this.scheduler.offer({
            name: `${name} answers`,
            sort: 'must',
            run: () => resolve({}),
            faults: { 'the answer is lost': () => fail(new Error('no answer in time')) },
          }),
        fail,
      )
    })
  }

  /** The router: each close is delivered once, whenever it pleases the scheduler. */
  async #report({ items }: ReportRequest) {
    const results = items.map(
      ({ item }) =>
        new Promise<ReportResult>((resolve) => {
          if (item?.$case !== 'sessionReplaced') throw new Error(`an edge has reported ${item?.$case}`)
          const replaced = item.value
          this.scheduler.offer({
            name: `CloseSession ${replaced.sessionId.charAt(0)} for ${replaced.replacerSessionId.charAt(0)}`,
            sort: 'must',
            run: async () => {
              await this.#close(replaced)
              resolve(ReportResult.DONE)
            },
          })
        }),
    )
    return { results: await Promise.all(results) }
  }

  async #close(replaced: SessionReplaced): Promise<void> {
    const { edge, session } = this.#stayOf(replaced.sessionId)
    const close: CloseSession = {
      closeId: ++this.#closes,
      deviceId: replaced.deviceId,
      sessionId: replaced.sessionId,
      reason: CloseReason.SUPERSEDED,
      replacerSessionId: replaced.replacerSessionId,
      replacerEpoch: replaced.replacerEpoch,
      detail: '',
    }
    const registering = session !== undefined && !session.writes && !session.closed
    const delivered = this.#breakage.close === undefined ? close : this.#breakage.close(close, registering)
    if (delivered === undefined) return
    const newer =
      session?.writes && compareRows(session.order, { epoch: close.replacerEpoch, sessionId: close.replacerSessionId }) > 0
    await edge.deliver({ closeSessions: [delivered] })
    if (newer && !session.writes) this.#newerClosed = true
  }

  #call<T>(caller: Caller, registry: number, run: (sessions: Sessions) => Promise<T>): Promise<T> {
    const sessions = this.#registries[registry]
    if (sessions === undefined) throw new RangeError(`there is no registry ${registry}`)
    return callers.run(caller, () => run(sessions))
  }

  #stayOf(sessionId: string): Stay {
    const found = this.#stays.find(({ letter }) => sessionId.startsWith(letter))
    if (found === undefined) throw new Error(`nobody has the session ${sessionId}`)
    return found
  }

  /** What could still happen to it unasked cannot any more. */
  #takeBack(stay: Stay): void {
    for (const back of stay.takeBack) back()
    stay.takeBack = []
  }

  /** Sends messages as a router does, each to the first row that Lookup shows: one for each ghost above, then it must arrive. */
  async #heal(rowCount: number): Promise<Finding[]> {
    const anyOpen = this.#stays.some(({ session }) => session?.writes)
    for (let message = 0; message <= rowCount; message++) {
      const row = await this.#lookUp()
      if (row === undefined) return anyOpen ? ['a message does not find the open session'] : []
      const { edge } = this.#stayOf(row.sessionId)
      const delivery = deliveryOf({}, { deviceId: this.#deviceId, sessionId: row.sessionId })
      const [answer] = await edge.deliver({ deliveries: [delivery] })
      await this.scheduler.finish()
      if (answer?.outcomes[0]?.kind === OutcomeKind.WRITTEN) return []
    }
    return [anyOpen ? 'a message does not find the open session' : 'ghost rows do not heal']
  }

  async #lookUp(): Promise<SessionRow | undefined> {
    const { signal } = new AbortController()
    const caller: Caller = { name: 'look-up', call: 'lookup', sessionIds: [], heard: true }
    const request = LookupRequest.fromPartial({ deviceIds: [this.#deviceId] })
    const found = this.#call(caller, 0, (sessions) => sessions.lookup(request, { signal }))
    await this.scheduler.finish()
    return (await found).devices[0]?.routes[0]?.row
  }
}
