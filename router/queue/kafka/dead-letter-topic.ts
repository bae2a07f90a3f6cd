import type { Admin, Consumer, EachBatchPayload, Kafka, KafkaMessage } from 'kafkajs'
import type { Clock } from '../../../service-kit/clock.ts'
import { PushError } from '../../../service-kit/errors.ts'
import { randomSuffix } from '../../../service-kit/ids.ts'
import type { Log } from '../../../service-kit/log.ts'
import type { Random } from '../../../service-kit/random.ts'
import { deadLetterPageBytesMax, deadLetterReadBytesMax, tooManyDeadLetters } from '../dead-letter-bounds.ts'
import type { DeadLetterPage, DeadLetterPosition, MessageQueue, StoredDeadLetter } from '../message-queue.ts'
import { undecodableBatchOf } from './batch-check.ts'

export interface DeadLetterTopicOptions {
  readonly kafka: Kafka
  readonly topic: string
  /** Each reading is a consumer group of its own, whose name begins with this. Nothing is committed, so Kafka forgets it by itself. */
  readonly groupPrefix: string
  /** The longest that one call may take, ms. */
  readonly timeoutMs: number
  /** How long leaving the group may take, ms. */
  readonly leaveTimeoutMs: number
  /** Ends what is under way. */
  readonly closing: AbortSignal
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
}

/** Reads and cuts the dead-letter topic. */
export interface DeadLetterTopic extends Pick<MessageQueue, 'listDeadLetters' | 'readDeadLetters' | 'purgeDeadLettersBefore'> {
  /** Resolves when every reading that was under way has left its group. */
  left(): Promise<void>
}

/** What is looked for in one partition. */
interface Place {
  readonly partition: number
  /** The first offset at or above `from` that is looked for; undefined: none. */
  next(from: bigint): bigint | undefined
}

/** What a partition holds: from `low` on, below `high`. */
interface Extent {
  readonly partition: number
  readonly low: bigint
  readonly high: bigint
}

const fetchWaitMs = 100
const fetchBytesMax = 1024 * 1024
const leaderPauseMs = 200

export function createDeadLetterTopic(options: DeadLetterTopicOptions): DeadLetterTopic {
  const { kafka, topic, groupPrefix, timeoutMs, leaveTimeoutMs, closing, clock, random, log } = options
  const leaving = new Set<Promise<void>>()

  /** Runs one call within its time, and says QUEUE_UNAVAILABLE for whatever Kafka says. */
  async function inTime<T>(verb: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (closing.aborted) throw unavailable(verb, 'the queue is closed')
    const over = new AbortController()
    const signal = AbortSignal.any([over.signal, closing])
    const timer = clock.after(timeoutMs, () => over.abort(new Error(`it took longer than ${timeoutMs} ms`)))
    const ended = new Promise<never>((_, reject) => {
      const end = () => reject(signal.reason)
      if (signal.aborted) end()
      else signal.addEventListener('abort', end, { once: true })
    })
    ended.catch(() => undefined)
    try {
      return await Promise.race([work(signal), ended])
    } catch (cause) {
      if (cause instanceof PushError) throw cause
      log.warn(`dead letters cannot be ${verb}`, { topic, cause })
      throw unavailable(verb, 'Kafka does not answer, or not in time', cause)
    } finally {
      timer.cancel()
      over.abort()
    }
  }

  async function asAdmin<T>(use: (admin: Admin) => Promise<T>): Promise<T> {
    const admin = kafka.admin()
    try {
      await admin.connect()
      return await use(admin)
    } finally {
      await admin.disconnect().catch(() => undefined)
    }
  }

  /** Asks again for as long as there is time while a partition has no leader yet, or another one than was known: there kafkajs gives up at once. */
  async function whenLed<T>(signal: AbortSignal, use: (admin: Admin) => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await asAdmin(use)
      } catch (error) {
        if (!isOfTheMoment(error)) throw error
        await clock.sleep(leaderPauseMs, signal)
      }
    }
  }

  const extentsBy = async (admin: Admin): Promise<Extent[]> =>
    (await admin.fetchTopicOffsets(topic))
      .map(({ partition, low, high }) => ({ partition, low: BigInt(low), high: BigInt(high) }))
      .toSorted((one, other) => one.partition - other.partition)

  /** Goes through the places in order and hands over what is found, until `take` wants no more. */
  async function scan(
    places: readonly Place[],
    partitions: readonly number[],
    signal: AbortSignal,
    take: (partition: number, message: KafkaMessage) => boolean,
  ): Promise<void> {
    signal.throwIfAborted()
    const consumer = kafka.consumer({
      groupId: `${groupPrefix}${randomSuffix(random, 12)}`,
      maxWaitTimeInMs: fetchWaitMs,
      maxBytesPerPartition: fetchBytesMax,
      allowAutoTopicCreation: false,
      retry: { restartOnFailure: async () => false },
    })
    const over = Promise.withResolvers<void>()
    over.promise.catch(() => undefined)
    consumer.on(consumer.events.CRASH, ({ payload }) => over.reject(payload.error))
    signal.addEventListener('abort', () => over.reject(signal.reason), { once: true })
    const walk = new Walk(consumer, topic, places, partitions, take, over.resolve)
    const running = (async () => {
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, eachBatch: async (payload) => walk.take(payload) })
      walk.begin()
    })()
    running.catch(over.reject)
    try {
      await over.promise
    } finally {
      await leave(consumer, running)
    }
  }

  async function leave(consumer: Consumer, running: Promise<void>): Promise<void> {
    const timer = new AbortController()
    const gone = running
      .catch(() => undefined)
      .then(() => consumer.disconnect())
      .catch((cause: unknown) => log.debug('reader of dead letters did not leave in order', { cause }))
      .then(() => void leaving.delete(gone))
    leaving.add(gone)
    await Promise.race([gone, clock.sleep(leaveTimeoutMs, timer.signal).catch(() => undefined)])
    timer.abort()
  }

  return {
    left: async () => {
      await Promise.all(leaving)
    },

    listDeadLetters: ({ after, limit }) =>
      inTime('read', async (signal): Promise<DeadLetterPage> => {
        const extents = await whenLed(signal, extentsBy)
        const places = extents.flatMap((extent) => {
          const from = extent.partition === after?.partition ? larger(extent.low, after.offset + 1n) : extent.low
          if (from >= extent.high || extent.partition < (after?.partition ?? 0)) return []
          return [{ partition: extent.partition, next: nextOf({ ...extent, low: from }) }]
        })
        if (places.length === 0) return { letters: [], more: false }
        const letters: StoredDeadLetter[] = []
        let size = 0
        let more = false
        await scan(places, partitionsOf(extents), signal, (partition, message) => {
          size += message.value?.byteLength ?? 0
          more = letters.length === limit || (letters.length > 0 && size > deadLetterPageBytesMax)
          if (!more) letters.push(letterOf(partition, message))
          return !more
        })
        return { letters, more }
      }),

    readDeadLetters: (positions) =>
      inTime('read', async (signal) => {
        const extents = await whenLed(signal, extentsBy)
        const places = extents.flatMap(({ partition, low, high }) => {
          const next = nextAmong(
            positions.filter((position) => position.partition === partition && position.offset >= low && position.offset < high),
          )
          return next(0n) === undefined ? [] : [{ partition, next }]
        })
        if (places.length === 0) return []
        const letters: StoredDeadLetter[] = []
        let size = 0
        await scan(places, partitionsOf(extents), signal, (partition, message) => {
          size += message.value?.byteLength ?? 0
          if (size <= deadLetterReadBytesMax) letters.push(letterOf(partition, message))
          return size <= deadLetterReadBytesMax
        })
        if (size > deadLetterReadBytesMax) throw tooManyDeadLetters()
        return letters
      }),

    purgeDeadLettersBefore: (timeMs) =>
      inTime('removed', async (signal) => {
        const cuts = await whenLed(signal, async (admin) => {
          const lows = new Map((await extentsBy(admin)).map(({ partition, low }) => [partition, low]))
          const ends = await admin.fetchTopicOffsetsByTimestamp(topic, Math.ceil(timeMs))
          return ends.flatMap(({ partition, offset }) => {
            const count = BigInt(offset) - (lows.get(partition) ?? 0n)
            return count > 0n ? [{ partition, offset, count }] : []
          })
        })
        if (cuts.length === 0) return 0
        return asAdmin(async (admin) => {
          // kafkajs knows no leaders of a topic that it has not been asked about.
          await admin.fetchTopicOffsets(topic)
          await admin.deleteTopicRecords({ topic, partitions: cuts.map(({ partition, offset }) => ({ partition, offset })) })
          return Number(cuts.reduce((sum, { count }) => sum + count, 0n))
        })
      }),
  }
}

/** One way through the places. Only the partition that it stands at is fetched, so that a page costs the memory of a page. */
class Walk {
  readonly #consumer: Consumer
  readonly #topic: string
  readonly #places: readonly Place[]
  readonly #partitions: readonly number[]
  readonly #take: (partition: number, message: KafkaMessage) => boolean
  readonly #done: () => void
  #index = -1
  #wanted: bigint | undefined

  constructor(
    consumer: Consumer,
    topic: string,
    places: readonly Place[],
    partitions: readonly number[],
    take: (partition: number, message: KafkaMessage) => boolean,
    done: () => void,
  ) {
    this.#consumer = consumer
    this.#topic = topic
    this.#places = places
    this.#partitions = partitions
    this.#take = take
    this.#done = done
  }

  begin(): void {
    this.#index++
    const place = this.#places[this.#index]
    this.#wanted = place?.next(0n)
    if (!place || this.#wanted === undefined) return this.#finish()
    const others = this.#partitions.filter((partition) => partition !== place.partition)
    this.#consumer.pause([{ topic: this.#topic, partitions: others }])
    this.#consumer.resume([{ topic: this.#topic, partitions: [place.partition] }])
    this.#seek(place, this.#wanted)
  }

  take({ batch, resolveOffset, isStale }: EachBatchPayload): void {
    const place = this.#places[this.#index]
    if (!place || batch.partition !== place.partition || isStale()) return
    for (const message of batch.messages) {
      const offset = BigInt(message.offset)
      if (this.#wanted === undefined) break
      if (offset > this.#wanted) this.#wanted = place.next(offset)
      if (offset !== this.#wanted) continue
      if (!this.#take(place.partition, message)) return this.#finish()
      this.#wanted = place.next(offset + 1n)
    }
    const end = BigInt(batch.lastOffset()) + 1n
    // An offset that the log has passed over is not there any more.
    if (this.#wanted !== undefined && this.#wanted < end) this.#wanted = place.next(end)
    if (this.#wanted === undefined) return this.begin()
    if (this.#wanted === end) resolveOffset(batch.lastOffset())
    else this.#seek(place, this.#wanted)
  }

  #seek({ partition }: Place, offset: bigint): void {
    this.#consumer.seek({ topic: this.#topic, partition, offset: `${offset}` })
  }

  #finish(): void {
    this.#index = this.#places.length
    this.#done()
  }
}

/** What a broker has answered, and may answer otherwise in a moment. The classes of kafkajs's errors cannot be imported by their names. */
function isOfTheMoment(error: unknown): boolean {
  return error instanceof Error && error.name === 'KafkaJSProtocolError' && 'retriable' in error && error.retriable === true
}

function unavailable(verb: string, why: string, cause?: unknown): PushError {
  return new PushError(
    'QUEUE_UNAVAILABLE',
    `dead letters cannot be ${verb}: ${why}`,
    {},
    { retryAfterMs: 1_000, ...(cause ? { cause } : {}) },
  )
}

function nextOf({ low, high }: Extent): Place['next'] {
  return (from) => {
    const offset = larger(from, low)
    return offset < high ? offset : undefined
  }
}

function nextAmong(positions: readonly DeadLetterPosition[]): Place['next'] {
  const offsets = positions.map(({ offset }) => offset).toSorted((one, other) => (one < other ? -1 : 1))
  return (from) => offsets.find((offset) => offset >= from)
}

function larger(one: bigint, other: bigint): bigint {
  return one > other ? one : other
}

function partitionsOf(extents: readonly Extent[]): number[] {
  return extents.map(({ partition }) => partition)
}

function letterOf(partition: number, message: KafkaMessage): StoredDeadLetter {
  return {
    partition,
    offset: BigInt(message.offset),
    key: message.key?.toString() ?? '',
    // A copy: it must not keep the megabyte that it was fetched with.
    value: Buffer.from(message.value ?? []),
    timestampMs: Number(message.timestamp),
    problem: undecodableBatchOf(message)?.problem,
  }
}
