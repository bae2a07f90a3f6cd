import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { zstdCompress } from 'node:zlib'
import { CompressionCodecs, CompressionTypes, type Kafka, Partitioners } from 'kafkajs'
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest'
import { metricValue } from '../../../service-kit/testing/metric-value.ts'
import type { Lane, MessageQueue } from '../message-queue.ts'
import { type KafkaLink, openKafkaLink } from '../testing/kafka-link.ts'
import { type KafkaStand, kafkaStand, untilState } from '../testing/kafka-stand.ts'
import { bytesOf, RecordTaker } from '../testing/record-taker.ts'

let stand: KafkaStand
let link: KafkaLink

beforeEach(async () => {
  stand = kafkaStand(inject('kafkaBrokers'), { partitionCount: 1 })
  link = await openKafkaLink(inject('kafkaBrokers')[0] ?? '')
})

afterEach(async () => {
  link.mend()
  await stand.close()
  await link.close()
})

const put = (queue: MessageQueue, text: string, lane: Lane = 'normal', key = 'tv') =>
  queue.publish({ lane, key, value: bytesOf(text) })

const numbered = (count: number, name = 'm') => Array.from({ length: count }, (_, index) => `${name}${index}`)

async function consumed(queue: MessageQueue): Promise<RecordTaker> {
  const taker = new RecordTaker()
  await queue.consume(taker)
  return taker
}

async function asAdmin<T>(use: (admin: ReturnType<Kafka['admin']>) => Promise<T>): Promise<T> {
  const admin = stand.kafka.admin()
  await admin.connect()
  try {
    return await use(admin)
  } finally {
    await admin.disconnect()
  }
}

/** Puts records into a lane as some other client would. */
async function produceRaw(
  texts: readonly string[],
  options: { lane?: Lane; partition?: number; compression?: CompressionTypes } = {},
) {
  const { lane = 'normal', partition = 0, compression = CompressionTypes.None } = options
  const producer = stand.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  const messages = texts.map((value) => ({ key: 'tv', value, partition }))
  const answers = await producer.send({ topic: stand.names.lanes[lane], compression, messages })
  await producer.disconnect()
  return BigInt(answers[0]?.baseOffset ?? '-1')
}

/** One batch in a codec that kafkajs cannot read. */
async function produceZstd(texts: readonly string[], options: { lane?: Lane; partition?: number } = {}) {
  const codecs: Record<number, unknown> = CompressionCodecs
  const readable = codecs[CompressionTypes.ZSTD]
  codecs[CompressionTypes.ZSTD] = () => ({ compress: (encoder: { buffer: Buffer }) => promisify(zstdCompress)(encoder.buffer) })
  try {
    return await produceRaw(texts, { ...options, compression: CompressionTypes.ZSTD })
  } finally {
    codecs[CompressionTypes.ZSTD] = readable
  }
}

describe('starting', () => {
  test('what was accepted before anyone consumed is consumed, and the group has a place before anything is finished', async () => {
    const { queue } = await stand.openReady()
    await Promise.all(numbered(100).map((text) => put(queue, text)))
    expect(await stand.committed('normal')).toEqual([-1])
    const taker = await consumed(queue)
    await taker.count(100)
    expect(taker.texts).toEqual(numbered(100))
    expect(await stand.committed('normal')).toEqual([0])
  })

  test('a group that has a place goes on from there, though older records are in the log', async () => {
    const first = await stand.openReady()
    await Promise.all(numbered(10).map((text) => put(first.queue, text)))
    const before = await consumed(first.queue)
    await before.count(10)
    before.leaseWith('m0').commitBelow(7n)
    await first.queue.stopConsuming(async () => {})
    await first.queue.close()
    const after = await consumed((await stand.openReady()).queue)
    await after.count(3)
    await delay(300)
    expect(after.texts).toEqual(['m7', 'm8', 'm9'])
    expect(await stand.committed('normal')).toEqual([7])
  })

  test('a queue whose Kafka is away starts, refuses what is published, and is ready when Kafka is there', async () => {
    link.cut()
    const { queue, fatal } = stand.open({ socketFactory: link.socketFactory })
    const taker = await consumed(queue)
    expect(queue.state).toBe('starting')
    await expect(put(queue, 'early')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    await delay(2_500)
    expect(queue.state).toBe('starting')
    expect(queue.stateReason).toBe('Kafka does not answer')
    link.mend()
    await untilState(queue, 'ready')
    await put(queue, 'now')
    await taker.count(1)
    expect(taker.texts).toEqual(['now'])
    expect(fatal).toEqual([])
  })

  test('weak topics refuse QUEUED by a sentence that names the setting, and what is in the queue is still delivered', async () => {
    await (await stand.openReady()).queue.close()
    await produceRaw(['old'])
    const { queue } = stand.open({ allowWeakDurability: false, bounds: { recheckMs: 60_000 } })
    await untilState(queue, 'unavailable')
    const refusal = put(queue, 'new')
    await expect(refusal).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    await expect(refusal).rejects.toThrow(/replication factor 1, below 3.*ROUTER_ALLOW_WEAK_DURABILITY/)
    const taker = await consumed(queue)
    await taker.count(1)
    await queue.publishDeadLetter('tv', bytesOf('cannot be read'))
  })

  test('copies of receipts go to a topic of their own', async () => {
    const { queue } = await stand.openReady()
    await queue.publishReceipt('message-1', bytesOf('stored'))
    await queue.publishReceipt('message-1', bytesOf('acknowledged'))
    const copies: string[] = []
    const consumer = stand.kafka.consumer({ groupId: `${stand.names.receipts}.test`, maxWaitTimeInMs: 100 })
    await consumer.connect()
    await consumer.subscribe({ topic: stand.names.receipts, fromBeginning: true })
    await consumer.run({ eachMessage: async ({ message }) => void copies.push(`${message.key} ${message.value}`) })
    await expect.poll(() => copies, { timeout: 10_000 }).toEqual(['message-1 stored', 'message-1 acknowledged'])
    await consumer.disconnect()
  })

  test('missing topics are named when they may not be created, and found when someone creates them', async () => {
    const { queue } = stand.open({ createTopics: false, bounds: { recheckMs: 300 } })
    await untilState(queue, 'unavailable')
    await expect(put(queue, 'a')).rejects.toThrow(`missing in Kafka: ${stand.names.lanes.high}`)
    const topics = [...Object.values(stand.names.lanes), stand.names.deadLetter, stand.names.receipts, stand.names.audit]
    await asAdmin((admin) => admin.createTopics({ topics: topics.map((topic) => ({ topic, numPartitions: 1 })) }))
    await untilState(queue, 'ready')
    await put(queue, 'a')
  })

  test('topics are not created with fewer replicas than asked for', async () => {
    const { queue } = stand.open({ replicationFactor: 3 })
    await untilState(queue, 'unavailable')
    expect(queue.stateReason).toMatch(/Kafka has 1 broker\(s\).*replication factor 3.*ROUTER_KAFKA_REPLICATION_FACTOR/)
    expect(await asAdmin((admin) => admin.listTopics())).not.toContain(stand.names.lanes.high)
  })

  test('topics are created with what keeps accepted messages', async () => {
    await stand.openReady({ partitionCount: 3 })
    const { topics } = await asAdmin((admin) => admin.fetchTopicMetadata({ topics: [stand.names.lanes.high] }))
    expect(topics[0]?.partitions).toHaveLength(3)
    const { resources } = await asAdmin((admin) =>
      admin.describeConfigs({
        includeSynonyms: false,
        resources: [{ type: 2, name: stand.names.lanes.high, configNames: ['retention.ms'] }],
      }),
    )
    // A message may live 30 days.
    expect(Number(resources[0]?.configEntries[0]?.configValue)).toBeGreaterThan(30 * 24 * 3_600_000)
  })
})

describe('consuming', () => {
  test('a batch is resolved at hand-over: what is not finished is not fetched over and over', async () => {
    const { queue } = await stand.openReady()
    await Promise.all(numbered(20).map((text) => put(queue, text)))
    const taker = await consumed(queue)
    await taker.count(20)
    await delay(1_500)
    expect(taker.records).toHaveLength(20)
  })

  test('a rebalance hands over again what is not committed, under new leases, and loses nothing', async () => {
    const { queue } = await stand.openReady({ partitionCount: 4 })
    const keys = numbered(60, 'device-')
    await Promise.all(keys.map((key) => put(queue, key, 'normal', key)))
    const one = await consumed(queue)
    await one.count(60)
    const oldLeases = one.started.filter((lease) => lease.lane === 'normal')
    const second = await stand.openReady()
    const two = await consumed(second.queue)
    await two.until(({ started }) => started.some((lease) => lease.lane === 'normal'))
    await one.until(() => oldLeases.every((lease) => lease.ended.aborted))
    const again = () => [...one.records.slice(60), ...two.records].map((record) => record.key)
    const deadline = AbortSignal.timeout(15_000)
    while (new Set(again()).size < 60 && !deadline.aborted) await delay(50)
    expect(new Set(again())).toEqual(new Set(keys))
    for (const lease of one.leaseOf.slice(60)) expect(oldLeases).not.toContain(lease)
  })

  test('an old generation moves no commit: not of a partition that another member has by now', async () => {
    const { queue, metrics } = await stand.openReady({ partitionCount: 2 })
    const texts = numbered(80)
    await Promise.all(texts.map((text, index) => produceRaw([text], { partition: index % 2 })))
    const one = await consumed(queue)
    await one.count(80)
    const oldLeases = one.started.filter((lease) => lease.lane === 'normal')
    const two = await consumed((await stand.openReady()).queue)
    await two.until(({ records }) => records.length >= 40)
    const moved = two.leaseOf[0]?.partition ?? -1
    two.leaseOf.at(-1)?.commitBelow(40n)
    const deadline = AbortSignal.timeout(10_000)
    while ((await stand.committed('normal'))[moved] !== 40 && !deadline.aborted) await delay(50)
    const commitsBefore = await metricValue(metrics, 'push_router_queue_commits_total', { lane: 'normal' })
    // What an outcome that comes late would say: this member got as far as 7.
    for (const lease of oldLeases) lease.commitBelow(7n)
    await delay(1_000)
    expect((await stand.committed('normal'))[moved]).toBe(40)
    expect(await metricValue(metrics, 'push_router_queue_commits_total', { lane: 'normal' })).toBe(commitsBefore)
  })

  test('a commit that fails is not made up for under the next generation', async () => {
    const bounds = { sessionTimeoutMs: 6_000, requestTimeoutMs: 30_000 }
    const first = await stand.openReady({ partitionCount: 2, socketFactory: link.socketFactory, bounds })
    for (const partition of [0, 1]) await produceRaw(numbered(40, `p${partition}-`), { partition })
    const one = await consumed(first.queue)
    await one.count(80)
    // This member stalls with its commits on the way; the group goes on without it.
    link.hold('requests')
    for (const lease of new Set(one.leaseOf)) lease.commitBelow(7n)
    const two = await consumed((await stand.openReady({ bounds })).queue)
    await two.count(80, 30_000)
    for (const lease of new Set(two.leaseOf)) lease.commitBelow(40n)
    const deadline = AbortSignal.timeout(10_000)
    while (`${await stand.committed('normal')}` !== '40,40' && !deadline.aborted) await delay(50)
    link.release()
    await one.until(
      ({ started, ended }) => started.length > ended.length && ended.some((lease) => lease.lane === 'normal'),
      30_000,
    )
    for (let round = 0; round < 20; round++) {
      await delay(200)
      expect(await stand.committed('normal')).toEqual([40, 40])
    }
  }, 90_000)

  test('a batch whose answer is lost does not swallow the next one', async () => {
    const { queue } = await stand.openReady({
      socketFactory: link.socketFactory,
      bounds: { sendTimeoutMs: 1_000, requestTimeoutMs: 1_000 },
    })
    await put(queue, 'first')
    link.hold('answers')
    // It is in the log under a number that kafkajs gives to the next batch again.
    await expect(put(queue, 'answer lost')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    link.cut()
    link.release()
    link.mend()
    await untilState(queue, 'ready')
    await put(queue, 'accepted')
    const taker = await consumed(queue)
    await taker.until(({ texts }) => texts.includes('accepted'), 10_000)
    expect(taker.texts).toContain('first')
  })

  test('a lane that is paused whole goes on soon and stays in its group', async () => {
    const { queue } = await stand.openReady({ bounds: { sessionTimeoutMs: 6_000 } })
    await put(queue, 'a')
    const taker = await consumed(queue)
    await taker.count(1)
    const lease = taker.leaseWith('a')
    lease.pause()
    await put(queue, 'b')
    // Longer than the session: only heartbeats keep the lease.
    await delay(8_000)
    expect(taker.texts).toEqual(['a'])
    expect(lease.ended.aborted).toBe(false)
    const resumedAt = performance.now()
    lease.resume()
    await taker.count(2)
    // Rather than after the five seconds that a fetch waits by default.
    expect(performance.now() - resumedAt).toBeLessThan(4_500)
    expect(taker.leaseWith('b')).toBe(lease)
  })

  test('records that retention removed are passed over, counted, and alarmed once', async () => {
    const { queue, metrics, log } = await stand.openReady()
    await Promise.all(numbered(10).map((text) => put(queue, text)))
    const taker = await consumed(queue)
    await taker.count(10)
    const lease = taker.leaseWith('m0')
    lease.pause()
    await Promise.all(numbered(10, 'gone').map((text) => put(queue, text)))
    const remove = (offset: string) =>
      asAdmin(async (admin) => {
        // kafkajs has to know the topic beforehand.
        await admin.fetchTopicOffsets(stand.names.lanes.normal)
        await admin.deleteTopicRecords({ topic: stand.names.lanes.normal, partitions: [{ partition: 0, offset }] })
      })
    await remove('15')
    lease.resume()
    await taker.count(15)
    expect(taker.texts.slice(10)).toEqual(numbered(10, 'gone').slice(5))
    expect(await metricValue(metrics, 'push_router_queue_position_resets_total', { lane: 'normal', cause: 'records_gone' })).toBe(
      1,
    )
    expect(log.entries.filter(({ level, phrase }) => level === 'error' && phrase.includes('another place'))).toHaveLength(1)
    lease.commitBelow(20n)
    await delay(500)
    expect(await stand.committed('normal')).toEqual([20])
  })

  test('a topic that is made anew is read from its start, under a new lease', async () => {
    const { queue, fatal } = await stand.openReady()
    await Promise.all(numbered(10).map((text) => put(queue, text)))
    const taker = await consumed(queue)
    await taker.count(10)
    const lease = taker.leaseWith('m0')
    lease.commitBelow(10n)
    await delay(400)
    await asAdmin((admin) => admin.deleteTopics({ topics: [stand.names.lanes.normal] }))
    await lease.ended.aborted
    await taker.until(() => lease.ended.aborted)
    const deadline = AbortSignal.timeout(30_000)
    // The queue creates it again by itself.
    while (
      !deadline.aborted &&
      !(await put(queue, 'anew')
        .then(() => true)
        .catch(() => delay(200, false)))
    ) {}
    await taker.until(({ texts }) => texts.includes('anew'), 30_000)
    expect(taker.leaseWith('anew')).not.toBe(lease)
    expect(taker.offsetOf('anew')).toBe(0n)
    taker.leaseWith('anew').commitBelow(1n)
    await delay(500)
    expect(await stand.committed('normal')).toEqual([1])
    expect(fatal).toEqual([])
  })

  test('a group that has vanished starts again at the start of the log, counted and alarmed', async () => {
    const { queue, metrics, log } = await stand.openReady({
      socketFactory: link.socketFactory,
      bounds: { sessionTimeoutMs: 6_000 },
    })
    await Promise.all(numbered(5).map((text) => put(queue, text)))
    const taker = await consumed(queue)
    await taker.count(5)
    taker.leaseWith('m0').commitBelow(5n)
    await delay(500)
    link.cut()
    const deadline = AbortSignal.timeout(30_000)
    let deleted = false
    // Possible once the group has no members any more.
    while (!deleted && !deadline.aborted) {
      await delay(500)
      deleted = await asAdmin((admin) => admin.deleteGroups([stand.names.groups.normal])).then(
        () => true,
        () => false,
      )
    }
    expect(deleted).toBe(true)
    link.mend()
    await taker.count(10, 40_000)
    expect(taker.texts.slice(5)).toEqual(numbered(5))
    expect(
      await metricValue(metrics, 'push_router_queue_position_resets_total', { lane: 'normal', cause: 'group_vanished' }),
    ).toBe(1)
    expect(log.entries.filter(({ level, phrase }) => level === 'error' && phrase.includes('another place'))).toHaveLength(1)
  })

  test('a Kafka that goes away and comes back: leases end, publish is refused meanwhile, then all goes on', async () => {
    const { queue, metrics, fatal } = await stand.openReady({
      socketFactory: link.socketFactory,
      bounds: { sendTimeoutMs: 1_500, requestTimeoutMs: 1_500, connectTimeoutMs: 500 },
    })
    const taker = await consumed(queue)
    await put(queue, 'before')
    await taker.count(1)
    link.cut()
    await expect(put(queue, 'during')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    expect(queue.state).toBe('unavailable')
    await expect(put(queue, 'during too')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    const lease = taker.leaseWith('before')
    await taker.until(() => lease.ended.aborted, 40_000)
    link.mend()
    await untilState(queue, 'ready', 40_000)
    await put(queue, 'after')
    await taker.until(({ texts }) => texts.includes('after'), 30_000)
    // It was not committed, so it comes again; refused ones may be there, accepted ones must be.
    expect(taker.texts.filter((text) => text === 'before')).toHaveLength(2)
    expect(await metricValue(metrics, 'push_router_queue_consumer_crashes_total', { lane: 'normal' })).toBeGreaterThan(0)
    expect(fatal).toEqual([])
  }, 120_000)

  test('a consumer that throws is a defect: the process is told to end', async () => {
    const { queue, fatal } = await stand.openReady()
    await put(queue, 'a')
    const taker = new RecordTaker()
    taker.onBatch = () => {
      throw new TypeError('not a function')
    }
    await queue.consume(taker)
    const deadline = AbortSignal.timeout(15_000)
    while (fatal.length === 0 && !deadline.aborted) await delay(50)
    expect(fatal[0]?.message).toContain('not a function')
  })
})

describe('a batch that cannot be decoded', () => {
  test('a foreign codec stops its partition at its first offset; what lies before it and all other partitions go on; skip passes it', async () => {
    const { queue, metrics, log, fatal } = await stand.openReady({ partitionCount: 2 })
    await produceRaw(['before-1', 'before-2'])
    const bad = await produceZstd(numbered(3, 'foreign'))
    await produceRaw(['behind'])
    await produceRaw(['other partition'], { partition: 1 })
    await produceRaw(['other lane'], { lane: 'high' })
    const taker = await consumed(queue)
    await taker.until(({ records }) => records.length === 4)
    await put(queue, 'still taken', 'low')
    await taker.until(({ texts }) => texts.includes('still taken'))
    await delay(1_000)
    expect(new Set(taker.texts)).toEqual(new Set(['before-1', 'before-2', 'other partition', 'other lane', 'still taken']))
    expect(bad).toBe(2n)
    expect(await metricValue(metrics, 'push_router_queue_stopped_partitions', { lane: 'normal' })).toBe(1)
    const alarms = log.entries.filter(({ level }) => level === 'error')
    expect(alarms).toHaveLength(1)
    expect(alarms[0]?.facts).toMatchObject({ lane: 'normal', partition: 0, offset: '2', last_offset: '4' })

    const lease = taker.leaseWith('before-2')
    lease.commitBelow(2n)
    // Back-pressure does not undo the stop.
    lease.pause()
    lease.resume()
    await delay(500)
    expect(await stand.committed('normal')).toEqual([2, 0])
    expect(await queue.skip('normal', 0, 1n)).toBe(false)
    expect(await queue.skip('normal', 0, 2n)).toBe(true)
    await taker.until(({ texts }) => texts.includes('behind'))
    expect(taker.texts.filter((text) => text.startsWith('before'))).toHaveLength(2)
    expect(taker.leaseWith('behind')).toBe(lease)
    await delay(400)
    // Nothing below the foreign batch is open, so it is not waited for any more.
    expect((await stand.committed('normal'))[0]).toBe(5)
    expect(await metricValue(metrics, 'push_router_queue_stopped_partitions', { lane: 'normal' })).toBe(0)
    expect(fatal).toEqual([])
    expect(await metricValue(metrics, 'push_router_queue_consumer_crashes_total', { lane: 'normal' })).toBeUndefined()
  })

  test('a skip commits nothing before the records in front of it are finished', async () => {
    const { queue } = await stand.openReady()
    await produceRaw(['before'])
    await produceZstd(['foreign'])
    await produceRaw(['behind'])
    const taker = await consumed(queue)
    await taker.count(1)
    const deadline = AbortSignal.timeout(5_000)
    while (!(await queue.skip('normal', 0, 1n)) && !deadline.aborted) await delay(50)
    await taker.count(2)
    await delay(400)
    expect(await stand.committed('normal')).toEqual([0])
    taker.leaseWith('before').commitBelow(1n)
    await delay(400)
    expect(await stand.committed('normal')).toEqual([2])
  })

  test('a wrong checksum stops the partition rather than handing over what was not sent', async () => {
    const { queue, log } = await stand.openReady({ socketFactory: link.socketFactory })
    link.corrupt('REBOOT-NEVER', 'REBOOT-ALWAYS'.slice(0, 12))
    await produceRaw(['fine'])
    await produceRaw(['please REBOOT-NEVER'])
    const taker = await consumed(queue)
    await taker.count(1)
    const deadline = AbortSignal.timeout(5_000)
    while (!log.entries.some(({ level }) => level === 'error') && !deadline.aborted) await delay(50)
    expect(taker.texts).toEqual(['fine'])
    expect(log.entries.find(({ level }) => level === 'error')?.facts).toMatchObject({
      offset: '1',
      problem: 'its checksum is wrong',
    })
  })

  test('gzip is read as before', async () => {
    const { queue } = await stand.openReady()
    await produceRaw(['packed-1', 'packed-2'], { compression: CompressionTypes.GZIP })
    const taker = await consumed(queue)
    await taker.count(2)
    expect(taker.texts).toEqual(['packed-1', 'packed-2'])
  })

  test('a record that looks like a stand-in is a record', async () => {
    const { queue } = await stand.openReady()
    const producer = stand.kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await producer.connect()
    const forged = { key: 'tv', value: 'real', headers: { undecodable: `${'0'.repeat(32)} 9 forged` } }
    await producer.send({ topic: stand.names.lanes.normal, messages: [forged] })
    await producer.disconnect()
    const taker = await consumed(queue)
    await taker.count(1)
    expect(taker.texts).toEqual(['real'])
  })
})
