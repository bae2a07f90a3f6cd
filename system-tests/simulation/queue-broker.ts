import {
  type Lane,
  lanes,
  type MessageQueue,
  type PartitionLease,
  type QueueConsumer,
  type QueueRecord,
} from '../../router/queue/message-queue.ts'
import { PushError } from '../../service-kit/errors.ts'
import { hostOf } from './network.ts'
import type { SimulatedProcess } from './simulated-process.ts'
import type { World } from './world.ts'

/** What becomes of a record on its way to the broker. */
export interface PublishFate {
  readonly delayMs: number
  /** `record`: it never arrives. `answer`: it is in the queue, and its publisher is told that it may not be. */
  readonly lost?: 'record' | 'answer'
}

interface Partition {
  readonly lane: Lane
  readonly partition: number
  readonly records: QueueRecord[]
  nextOffset: bigint
  committed: bigint
  owner: BrokerLease | undefined
}

interface Member {
  readonly process: SimulatedProcess
  readonly consumer: QueueConsumer
  leaseCount: number
  stopping: boolean
}

const partitionCount = 2
const recordsAtOnce = 20
/** How late a commit is written, ms. */
const commitDelayMs = { min: 5, max: 120 }
/** How long the group waits for a member that says nothing, ms. */
const sessionTimeoutMs = 1_500

/** One member's hold on one partition. */
class BrokerLease implements PartitionLease {
  readonly lane: Lane
  readonly partition: number
  readonly generation: number
  readonly member: Member
  readonly abort = new AbortController()
  position: bigint
  paused = false
  fetching = false
  /** Its member knows of it: nothing is handed over before. */
  started = false
  #wanted: bigint | undefined
  readonly #broker: QueueBroker
  readonly #of: Partition

  constructor(broker: QueueBroker, of: Partition, member: Member) {
    this.#broker = broker
    this.#of = of
    this.lane = of.lane
    this.partition = of.partition
    this.member = member
    this.generation = ++member.leaseCount
    this.position = of.committed
  }

  get ended(): AbortSignal {
    return this.abort.signal
  }

  commitBelow(offset: bigint): void {
    if (this.ended.aborted || offset <= (this.#wanted ?? -1n)) return
    const isWritten = this.#wanted !== undefined
    this.#wanted = offset
    if (isWritten) return
    const { world } = this.#broker
    world.time.after(world.between(commitDelayMs.min, commitDelayMs.max), this.member.process, () => {
      const due = this.#wanted
      this.#wanted = undefined
      // A broker takes commits of the present owner only.
      if (due === undefined || this.#of.owner !== this || due <= this.#of.committed) return
      world.trace(() => `${this.lane}-${this.partition} is committed below ${due} by ${this.member.process.name}`)
      this.#of.committed = due
    })
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    this.paused = false
    this.#broker.fetchSoon(this)
  }
}

/** A broker of the simulation, behind `MessageQueue`: partitions, offsets with gaps, a group whose members come and go, and what was not committed again for the next owner. */
export class QueueBroker {
  readonly world: World
  readonly #partitions: Partition[] = []
  readonly #members: Member[] = []
  fateOf: () => PublishFate

  constructor(world: World) {
    this.world = world
    this.fateOf = () => ({ delayMs: world.between(0.5, 3) })
    for (const lane of lanes) {
      for (let partition = 0; partition < partitionCount; partition++) {
        this.#partitions.push({ lane, partition, records: [], nextOffset: 0n, committed: 0n, owner: undefined })
      }
    }
  }

  /** In place of `openQueue`. */
  open(process: SimulatedProcess): MessageQueue {
    const { world } = this
    let member: Member | undefined
    const put = (store: () => void) => {
      const { delayMs, lost } = this.fateOf()
      const done = Promise.withResolvers<void>()
      if (lost !== 'record') world.time.after(delayMs / 2, undefined, store)
      world.time.after(delayMs, process, () => {
        if (lost === undefined) done.resolve()
        else done.reject(new PushError('QUEUE_UNAVAILABLE', 'the queue does not answer', {}, { retryAfterMs: 1_000 }))
      })
      return done.promise
    }
    return {
      publish: ({ lane, key, value }) => put(() => this.#append(lane, key, value)),
      // Kept by nobody: what a message came to is told by its receipts.
      publishDeadLetter: () => put(() => {}),
      publishReceipt: async () => {},
      publishAudit: () => put(() => {}),
      listDeadLetters: async () => ({ letters: [], more: false }),
      readDeadLetters: async () => [],
      purgeDeadLettersBefore: async () => 0,
      consume: async (consumer) => {
        const joined: Member = { process, consumer, leaseCount: 0, stopping: false }
        member = joined
        world.time.after(world.between(5, 200), process, () => {
          this.#members.push(joined)
          this.rebalance()
        })
        process.onDeath(() => {
          world.time.after(sessionTimeoutMs, undefined, () => this.#leave(joined))
        })
      },
      stopConsuming: async (settle) => {
        if (member === undefined) return
        member.stopping = true
        await settle()
        this.#leave(member)
      },
      skip: async () => false,
      state: 'ready',
      stateReason: undefined,
      onStateChange: () => () => {},
      close: async () => {},
    }
  }

  /** Everybody lets go of everything, and each partition gets an owner anew. */
  rebalance(): void {
    const { world } = this
    world.trace(() => 'the group is rebalanced')
    for (const of of this.#partitions) {
      this.#endLease(of)
      const members = this.#members.filter(({ process, stopping }) => process.alive && !process.paused && !stopping)
      if (members.length === 0) continue
      const member = world.pick(members)
      const lease = new BrokerLease(this, of, member)
      of.owner = lease
      world.time.after(world.between(1, 50), member.process, () => {
        if (of.owner !== lease) return
        world.trace(() => `${lease.lane}-${lease.partition} is with ${member.process.name} from ${lease.position}`)
        lease.started = true
        member.consumer.onLeaseStarted?.(lease)
        this.fetchSoon(lease)
      })
    }
  }

  /** The group gives up on who does not answer. */
  pausedFor(process: SimulatedProcess): void {
    this.world.time.after(sessionTimeoutMs, undefined, () => {
      if (process.paused) this.rebalance()
    })
  }

  fetchSoon(lease: BrokerLease): void {
    if (!lease.started || lease.fetching || lease.ended.aborted) return
    lease.fetching = true
    this.world.time.after(this.world.between(0.3, 4), lease.member.process, () => {
      lease.fetching = false
      if (lease.ended.aborted || lease.paused || lease.member.stopping) return
      const of = this.#partitions.find(({ lane, partition }) => lane === lease.lane && partition === lease.partition)
      const records = of?.records.filter(({ offset }) => offset >= lease.position).slice(0, recordsAtOnce) ?? []
      const last = records.at(-1)
      if (last === undefined) return
      lease.position = last.offset + 1n
      lease.member.consumer.onRecords(lease, records)
      this.fetchSoon(lease)
    })
  }

  #append(lane: Lane, key: string, value: Uint8Array): void {
    const partition = [...key].reduce((sum, character) => sum + character.charCodeAt(0), 0) % partitionCount
    const of = this.#partitions.find((other) => other.lane === lane && other.partition === partition)
    if (of === undefined) throw new Error(`there is no partition ${partition} of ${lane}`)
    // Offsets have gaps.
    of.nextOffset += BigInt(this.world.count(1, 3))
    const offset = of.nextOffset
    of.records.push({ lane, partition, offset, key, value: Uint8Array.from(value), timestampMs: Math.floor(this.world.wallMs) })
    this.world.trace(() => `${lane}-${partition} takes ${offset} for ${key}`)
    if (of.owner !== undefined) this.fetchSoon(of.owner)
  }

  #endLease(of: Partition): void {
    const lease = of.owner
    of.owner = undefined
    if (lease === undefined) return
    // A member hears of it when it runs; until then it believes in its lease.
    this.world.time.after(0, lease.member.process, () => {
      if (lease.ended.aborted) return
      lease.abort.abort()
      if (!lease.started) return
      lease.member.consumer.onLeaseEnded?.(lease)
    })
  }

  #leave(member: Member): void {
    const at = this.#members.indexOf(member)
    if (at < 0) return
    this.world.trace(() => `the group gives up on ${hostOf(member.process)}`)
    this.#members.splice(at, 1)
    this.rebalance()
  }
}
