import type { Metrics } from '../../service-kit/metrics.ts'
import { type Lane, lanes, type PartitionLease, type QueueRecord } from '../queue/message-queue.ts'
import { PartitionProgress } from './partition-progress.ts'

/** What sets out for a record: a flight to one device, or to all of an account. */
export interface Boarding {
  /** Messages with the same key set out in the order of the queue. */
  readonly chainKey: string
  /** It counts as in flight from here. */
  board(): void
  /** The registry does not answer (true), or answers again (false), while this one waits for its turn. */
  registryFails(fails: boolean): void
  /** Its edge does not answer, and it is held for it. */
  readonly stuck: boolean
  /** What it waits for, to have its turn, is stuck. */
  waitBehindStuck(): void
  /** Sets out. */
  start(): void
}

/** Where a record lies. */
export interface RecordPlace {
  readonly lane: Lane
  readonly partition: number
  readonly offset: bigint
}

/** One lane's share of what is in flight. */
interface LaneState {
  /** Flights that have set out and are not settled. */
  readonly flying: Set<Boarding>
  /** Flights that wait for room, in the order of arrival. Bounded by what the queue had fetched before it was paused. */
  readonly waiting: Set<Boarding>
  /** The last flight to each device, and of each account, that is not handed off: the next one waits for it. */
  readonly chainEnds: Map<string, Boarding>
  readonly leases: Set<PartitionLease>
  paused: boolean
}

interface LanesOptions {
  /** Flights at once in each lane. */
  readonly inFlightMax: number
  readonly metrics: Metrics
}

/** Keyed messages remembered in each lease; above it the oldest are forgotten, and the edge and the device still tell repeats. */
const keyedCountMax = 65_536

/** A paused lane goes on below this share of its budget, so that it does not switch with every message. */
const resumeShare = 0.75

/**
 * Keeps the queue's side of dispatch: who may set out (budget per lane, order per device), and what may be committed (progress per lease).
 *
 * Back-pressure drops nothing: a lane over its budget pauses its partitions and goes on with what it holds.
 */
export class Lanes {
  readonly #options: LanesOptions
  readonly #lanes = new Map<Lane, LaneState>()
  /** Progress belongs to one lease; it goes with it, and late settlements then commit nothing. */
  readonly #progress = new Map<PartitionLease, PartitionProgress>()
  /** Records in flight by place: one that is read again, by a later lease, joins its flight instead of setting out twice. */
  readonly #byPlace = new Map<string, Boarding>()
  readonly #places = new Map<Boarding, { place: RecordPlace; leases: Set<PartitionLease> }>()
  /** Flights that wait for the flight before them to be handed off, by that flight; and the other way round. */
  readonly #next = new Map<Boarding, Boarding>()
  readonly #before = new Map<Boarding, Boarding>()
  /** Keyed messages seen in each lease, oldest first: a repeat further on in the same partition is the same message, and is done with. */
  readonly #keyed = new Map<PartitionLease, Set<string>>()
  readonly #repeats
  readonly #inFlight
  readonly #pauses
  readonly #joins
  #held = false
  #stopped = false

  constructor(options: LanesOptions) {
    this.#options = options
    for (const lane of lanes) {
      this.#lanes.set(lane, { flying: new Set(), waiting: new Set(), chainEnds: new Map(), leases: new Set(), paused: false })
    }
    const { metrics } = options
    this.#inFlight = metrics.gauge('push_router_in_flight', 'Messages from the queue in flight', ['lane'])
    this.#pauses = metrics.counter(
      'push_router_lane_pauses_total',
      'Times a lane stopped fetching because its budget was used up',
      ['lane'],
    )
    this.#repeats = metrics.counter('push_router_repeated_publishes_total', 'Records dropped as repeats of a keyed publish', [
      'lane',
    ])
    this.#joins = metrics.counter('push_router_reread_records_total', 'Records read again while in flight', ['lane'])
  }

  /** Messages from the queue that are not settled. */
  get inFlightCount(): number {
    return this.#places.size
  }

  leaseStarted(lease: PartitionLease, paused: boolean): void {
    const lane = this.#lane(lease.lane)
    lane.leases.add(lease)
    this.#progress.set(lease, new PartitionProgress())
    this.#keyed.set(lease, new Set())
    if (paused || lane.paused) lease.pause()
  }

  /** The lease is over: its flights go on, but commit nothing. */
  leaseEnded(lease: PartitionLease): void {
    this.#lane(lease.lane).leases.delete(lease)
    this.#progress.delete(lease)
    this.#keyed.delete(lease)
    for (const { leases } of this.#places.values()) leases.delete(lease)
  }

  /** Takes note of a record. Returns false when nothing is to be done for it: it is in flight already, and its flight now counts for this lease too. */
  receive(lease: PartitionLease, record: QueueRecord): boolean {
    const progress = this.#progress.get(lease)
    if (!progress?.receive(record.offset)) return false
    const flight = this.#byPlace.get(placeKey(record))
    if (!flight) return true
    this.#joins.inc({ lane: record.lane })
    this.#places.get(flight)?.leases.add(lease)
    return false
  }

  /**
   * Whether a message that was published under an idempotency key has been seen in this lease before. All its records have one key, so they lie in
   * one partition; the earlier one holds its own offset until the message is done.
   */
  isRepeat(lease: PartitionLease, messageId: string): boolean {
    const seen = this.#keyed.get(lease)
    if (!seen || !isKeyedId(messageId)) return false
    if (seen.has(messageId)) {
      this.#repeats.inc({ lane: lease.lane })
      return true
    }
    seen.add(messageId)
    const oldest = seen.values().next().value
    if (seen.size > keyedCountMax && oldest !== undefined) seen.delete(oldest)
    return false
  }

  /** Lets a flight set out when its lane has room and the device's message before it has been handed off. */
  enter(lease: PartitionLease, offset: bigint, flight: Boarding): void {
    const place = { lane: lease.lane, partition: lease.partition, offset }
    this.#byPlace.set(placeKey(place), flight)
    this.#places.set(flight, { place, leases: new Set([lease]) })
    this.#lane(lease.lane).waiting.add(flight)
    this.#fill(lease.lane)
  }

  /**
   * Lets a flight set out when the one before it to the same device has been handed off. For itself it is for those that are part of a message which has
   * set out, and have no place of their own: one to each device of an account. Their holds run while they wait, and one device delays no other.
   */
  lineUp(laneName: Lane, flight: Boarding): void {
    const { chainEnds } = this.#lane(laneName)
    const before = chainEnds.get(flight.chainKey)
    chainEnds.set(flight.chainKey, flight)
    flight.board()
    if (before) {
      this.#follow(before, flight)
      if (this.#held) flight.registryFails(true)
      if (before.stuck) flight.waitBehindStuck()
    } else flight.start()
  }

  /** The flight's message is on its way: the device's next one may go, unless this one has ended before its own turn: then that waits on. */
  handedOff(laneName: Lane, flight: Boarding): void {
    const { chainEnds } = this.#lane(laneName)
    const before = this.#before.get(flight)
    const next = this.#next.get(flight)
    this.#before.delete(flight)
    this.#next.delete(flight)
    if (before) this.#next.delete(before)
    if (chainEnds.get(flight.chainKey) === flight) {
      if (before) chainEnds.set(flight.chainKey, before)
      else chainEnds.delete(flight.chainKey)
    }
    if (!next) return
    this.#before.delete(next)
    if (before) this.#follow(before, next)
    else next.start()
  }

  /** The flight's edge does not answer: those that wait for their turn behind it are held as well. */
  stuck(flight: Boarding): void {
    const behind: Boarding[] = []
    for (let next = this.#next.get(flight); next; next = this.#next.get(next)) behind.push(next)
    // Each may end at once, and leave the chain.
    for (const waiting of behind) waiting.waitBehindStuck()
  }

  #follow(before: Boarding, next: Boarding): void {
    this.#next.set(before, next)
    this.#before.set(next, before)
  }

  /** The flight has no next step: its place may be committed as soon as all below it may. */
  settled(laneName: Lane, flight: Boarding): void {
    const entry = this.#places.get(flight)
    if (!entry) return
    this.#places.delete(flight)
    this.#byPlace.delete(placeKey(entry.place))
    for (const lease of entry.leases) this.finish(lease, entry.place.offset)
    const lane = this.#lane(laneName)
    lane.flying.delete(flight)
    this.#fill(laneName)
  }

  /** A record needs no next step. */
  finish(lease: PartitionLease, offset: bigint): void {
    const mark = this.#progress.get(lease)?.finish(offset)
    if (mark !== undefined) lease.commitBelow(mark)
  }

  /** Where the flight's record lies; undefined for direct messages. */
  placeOf(flight: Boarding): RecordPlace | undefined {
    return this.#places.get(flight)?.place
  }

  /** The registry does not answer, so fetching stops on all lanes; or it goes on. What has set out is not touched, and what waits for its turn is told. */
  hold(held: boolean): void {
    this.#held = held
    for (const waiting of this.#before.keys()) waiting.registryFails(held)
    for (const lane of this.#lanes.values()) this.#applyPause(lane)
  }

  /** Lets no more flights set out; those that wait are handed over again to whoever owns the partition next. */
  stopStarting(): void {
    this.#stopped = true
    for (const lane of this.#lanes.values()) {
      for (const flight of lane.waiting) this.#forget(flight)
      lane.waiting.clear()
    }
  }

  #fill(laneName: Lane): void {
    const lane = this.#lane(laneName)
    for (const flight of lane.waiting) {
      if (lane.flying.size >= this.#options.inFlightMax || this.#stopped) break
      lane.waiting.delete(flight)
      lane.flying.add(flight)
      this.lineUp(laneName, flight)
    }
    this.#inFlight.set({ lane: laneName }, lane.flying.size)
    const full = lane.waiting.size > 0 || lane.flying.size >= this.#options.inFlightMax
    if (full && !lane.paused) {
      lane.paused = true
      this.#pauses.inc({ lane: laneName })
      this.#applyPause(lane)
    } else if (lane.paused && lane.waiting.size === 0 && lane.flying.size <= this.#options.inFlightMax * resumeShare) {
      lane.paused = false
      this.#applyPause(lane)
    }
  }

  #applyPause(lane: LaneState): void {
    for (const lease of lane.leases) {
      if (lane.paused || this.#held) lease.pause()
      else lease.resume()
    }
  }

  #forget(flight: Boarding): void {
    const entry = this.#places.get(flight)
    if (!entry) return
    this.#places.delete(flight)
    this.#byPlace.delete(placeKey(entry.place))
  }

  #lane(name: Lane): LaneState {
    const lane = this.#lanes.get(name)
    if (!lane) throw new Error(`no lane ${name}`)
    return lane
  }
}

/** Message ids made from an idempotency key are UUIDs of version 8. */
function isKeyedId(messageId: string): boolean {
  return messageId.charAt(14) === '8'
}

function placeKey({ lane, partition, offset }: RecordPlace): string {
  return `${lane}/${partition}/${offset}`
}
