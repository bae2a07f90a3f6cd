import type { ConsumerConfig, Kafka } from 'kafkajs'
import { beforeEach, describe, expect, test } from 'vitest'
import { createMetrics } from '../../../service-kit/metrics.ts'
import { seededRandom } from '../../../service-kit/random.ts'
import { recordingLog } from '../../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../../service-kit/testing/steered-clock.ts'
import { queueMetrics } from '../queue-metrics.ts'
import { RecordTaker } from '../testing/record-taker.ts'
import { kafkaQueueDefaults } from './kafka-options.ts'
import { LaneConsumer } from './lane-consumer.ts'

type Payload = Parameters<LaneConsumer['onBatch']>[0]

/** Stands in for kafkajs, so that the order of its events can be chosen. */
function fakeKafka() {
  const listeners = new Map<string, (event: { payload: unknown }) => void>()
  const calls: string[] = []
  const commitsOfItsOwn: string[] = []
  let failedCommits: unknown[] = []
  const created: ConsumerConfig[] = []
  const consumer = (config: ConsumerConfig) => {
    created.push(config)
    return {
      events: { GROUP_JOIN: 'join', REBALANCING: 'rebalancing', CRASH: 'crash', STOP: 'stop' },
      on: (name: string, listener: (event: { payload: unknown }) => void) => listeners.set(name, listener),
      connect: async () => {},
      subscribe: async (options: unknown) => calls.push(`subscribe ${JSON.stringify(options)}`),
      run: async () => {},
      disconnect: async () => calls.push('disconnect'),
      pause: (places: unknown) => calls.push(`pause ${JSON.stringify(places)}`),
      resume: (places: unknown) => calls.push(`resume ${JSON.stringify(places)}`),
      // As in kafkajs: what fails is repeated later, under the generation of that moment.
      commitOffsets: async (places: unknown) => {
        failedCommits.push(places)
      },
      seek: (place: unknown) => calls.push(`seek ${JSON.stringify(place)}`),
    }
  }
  return {
    kafka: { consumer } as unknown as Kafka,
    calls,
    created,
    commitsOfItsOwn,
    emit: (name: string, payload: unknown = {}) => {
      listeners.get(name)?.({ payload })
      if (name !== 'join') return
      commitsOfItsOwn.push(...failedCommits.map((places) => JSON.stringify(places)))
      failedCommits = []
    },
  }
}

describe('lane consumer', () => {
  let fake: ReturnType<typeof fakeKafka>
  let clock: SteeredClock
  let taker: RecordTaker
  let committed: Map<number, bigint>
  let commits: string[]
  let failCommitWith: Error | undefined
  let resolved: string[]
  let running: boolean[]
  let fatal: Error[]
  let lane: LaneConsumer

  beforeEach(async () => {
    fake = fakeKafka()
    clock = new SteeredClock()
    taker = new RecordTaker()
    committed = new Map([[0, 40n]])
    commits = []
    failCommitWith = undefined
    resolved = []
    running = []
    fatal = []
    let generation = 0
    lane = new LaneConsumer({
      kafka: fake.kafka,
      lane: 'normal',
      topic: 'push.normal',
      groupId: 'push.router.normal',
      consumer: taker,
      nextGeneration: () => ++generation,
      fetchCommitted: async () => committed,
      onRunning: (now) => running.push(now),
      onFatal: (error) => fatal.push(error),
      log: recordingLog(),
      metrics: queueMetrics(createMetrics()),
      clock,
      random: seededRandom(1),
      bounds: kafkaQueueDefaults,
    })
    lane.start()
    await clock.advance(0)
  })

  const join = (...partitions: number[]) => fake.emit('join', { memberAssignment: { 'push.normal': partitions } })

  const batchAt = (fetchedOffset: number, count: number, partition = 0): Payload => {
    const offsets = Array.from({ length: count }, (_, index) => `${fetchedOffset + index}`)
    return {
      batch: {
        partition,
        fetchedOffset: `${fetchedOffset}`,
        messages: offsets.map((offset) => ({ offset, key: Buffer.from('tv'), value: Buffer.from(offset), timestamp: '0' })),
        lastOffset: () => offsets.at(-1),
      },
      resolveOffset: (offset: string) => resolved.push(offset),
      commitOffsetsIfNecessary: async (offsets: {
        topics: Array<{ partitions: Array<{ partition: number; offset: string }> }>
      }) => {
        if (failCommitWith) throw failCommitWith
        for (const place of offsets.topics[0]?.partitions ?? []) commits.push(`${place.partition}:${place.offset}`)
      },
    } as unknown as Payload
  }

  test('reads from the beginning where the group has no place', () => {
    expect(fake.calls[0]).toBe('subscribe {"topic":"push.normal","fromBeginning":true}')
  })

  test('REBALANCE_IN_PROGRESS leaves the batch as it is, and nothing is handed over', async () => {
    committed.clear()
    join(0)
    failCommitWith = Object.assign(new Error('The group is rebalancing'), { type: 'REBALANCE_IN_PROGRESS' })
    await expect(lane.onBatch(batchAt(0, 3))).rejects.toBe(failCommitWith)
    expect(taker.records).toEqual([])
    expect(resolved).toEqual([])
  })

  test('the start is committed only where the group has none, and before anything is handed over', async () => {
    committed.set(1, -1n)
    join(0, 1)
    await lane.onBatch(batchAt(40, 1, 0))
    expect(commits).toEqual([])
    taker.onBatch = () => expect(commits).toEqual(['1:5'])
    await lane.onBatch(batchAt(5, 1, 1))
    expect(taker.texts).toEqual(['40', '5'])
  })

  test('a batch that was fetched for an earlier generation is not taken for the place to go on from', async () => {
    join(0)
    await lane.onBatch(batchAt(40, 60))
    const [old] = taker.started
    join(0)
    expect(old?.ended.aborted).toBe(true)
    // Fetched before the rejoin, where the earlier generation had got to: 40 to 99 are not committed.
    await lane.onBatch(batchAt(100, 5))
    expect(resolved).toEqual(['99'])
    await lane.onBatch(batchAt(40, 65))
    expect(taker.texts.slice(60)).toEqual(Array.from({ length: 65 }, (_, index) => `${40 + index}`))
    expect(taker.leaseOf.at(-1)).toBe(taker.started[1])
  })

  test('a partition that is read from further on twice in a row has nothing before it', async () => {
    join(0)
    await lane.onBatch(batchAt(55, 2))
    expect(taker.texts).toEqual([])
    await lane.onBatch(batchAt(55, 2))
    expect(taker.texts).toEqual(['55', '56'])
  })

  test('a log that begins again ends the lease, so that low offsets count anew', async () => {
    join(0)
    await lane.onBatch(batchAt(40, 2))
    const lease = taker.leaseOf[0]
    await lane.onBatch(batchAt(0, 2))
    expect(lease?.ended.aborted).toBe(true)
    const next = taker.leaseOf.at(-1)
    expect(next).not.toBe(lease)
    lease?.commitBelow(42n)
    next?.commitBelow(1n)
    await clock.advance(200)
    expect(commits).toEqual(['0:1'])
  })

  test('a batch that comes for a paused partition is left to be fetched again', async () => {
    join(0)
    await lane.onBatch(batchAt(40, 1))
    taker.started[0]?.pause()
    expect(fake.calls.at(-1)).toBe('pause [{"topic":"push.normal","partitions":[0]}]')
    await lane.onBatch(batchAt(41, 1))
    expect(resolved).toEqual(['40'])
    taker.started[0]?.resume()
    await lane.onBatch(batchAt(41, 1))
    expect(taker.texts).toEqual(['40', '41'])
  })

  test('commits are gathered, the highest counts, and one that fails is repeated while its lease lives', async () => {
    join(0)
    await lane.onBatch(batchAt(40, 10))
    const lease = taker.leaseOf[0]
    lease?.commitBelow(42n)
    lease?.commitBelow(45n)
    lease?.commitBelow(43n)
    failCommitWith = new Error('away')
    await clock.advance(200)
    failCommitWith = undefined
    await clock.advance(200)
    expect(commits).toEqual(['0:45'])
    lease?.commitBelow(50n)
    fake.emit('rebalancing')
    await clock.advance(500)
    expect(commits).toEqual(['0:45'])
  })

  test('a commit that has failed is not made up for after a rejoin, when the partition may be another member’s', async () => {
    committed.set(1, 0n)
    join(0, 1)
    await lane.onBatch(batchAt(40, 10))
    failCommitWith = new Error('the connection is lost')
    taker.leaseOf[0]?.commitBelow(47n)
    await clock.advance(150)
    failCommitWith = undefined
    join(1)
    await lane.onBatch(batchAt(0, 1, 1))
    await clock.advance(5_000)
    expect(commits).toEqual([])
    expect(fake.commitsOfItsOwn).toEqual([])
  })

  test('after a failure that may go away a new consumer is begun after a pause, and kafkajs begins none of its own', async () => {
    join(0)
    await lane.onBatch(batchAt(40, 1))
    const error = new Error('the connection is lost')
    expect(await fake.created[0]?.retry?.restartOnFailure?.(error)).toBe(false)
    fake.emit('crash', { error })
    expect(running).toEqual([true, false])
    expect(taker.leaseOf[0]?.ended.aborted).toBe(true)
    await clock.advance(kafkaQueueDefaults.restartMaxMs)
    expect(fake.created).toHaveLength(2)
    join(0)
    expect(running).toEqual([true, false, true])
    expect(fatal).toEqual([])
  })

  test('a failure that will not go away ends the process', async () => {
    join(0)
    fake.emit('crash', { error: new TypeError('a defect') })
    expect(fatal).toHaveLength(1)
    expect(taker.ended).toHaveLength(1)
  })

  test('after the end nothing is begun anew', async () => {
    join(0)
    await lane.stop()
    expect(fake.calls).toContain('disconnect')
    fake.emit('crash', { error: new Error('late') })
    await clock.advance(60_000)
    expect(fake.created).toHaveLength(1)
    expect(fatal).toEqual([])
  })
})
