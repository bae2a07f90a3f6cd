import { type ConsumerConfig, KafkaJSProtocolError } from 'kafkajs'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { systemClock } from '../../../service-kit/clock.ts'
import { silentLog } from '../../../service-kit/log.ts'
import { systemRandom } from '../../../service-kit/random.ts'
import { type KafkaLink, openKafkaLink } from '../testing/kafka-link.ts'
import { type KafkaStand, kafkaStand } from '../testing/kafka-stand.ts'
import { bytesOf, textOf } from '../testing/record-taker.ts'
import { createDeadLetterTopic } from './dead-letter-topic.ts'

let stand: KafkaStand
let link: KafkaLink

beforeEach(async () => {
  stand = kafkaStand(inject('kafkaBrokers'), { partitionCount: 1 })
  link = await openKafkaLink(inject('kafkaBrokers')[0] ?? '')
})

afterEach(async () => {
  link.release()
  link.mend()
  await stand.close()
  await link.close()
})

const unavailable = { reason: 'QUEUE_UNAVAILABLE', retryAfterMs: 1_000 }

test('a Kafka that says nothing any more ends every call in its time, and the next one is answered when it speaks again', async () => {
  const { queue } = await stand.openReady({ socketFactory: link.socketFactory, bounds: { deadLettersTimeoutMs: 600 } })
  await queue.publishDeadLetter('tv', bytesOf('a'))
  link.hold('answers')
  const startedAt = performance.now()
  await Promise.all([
    expect(queue.listDeadLetters({ limit: 10 })).rejects.toMatchObject(unavailable),
    expect(queue.readDeadLetters([{ partition: 0, offset: 0n }])).rejects.toMatchObject(unavailable),
    expect(queue.purgeDeadLettersBefore(0)).rejects.toMatchObject(unavailable),
  ])
  expect(performance.now() - startedAt).toBeLessThan(15_000)
  link.release()
  await expect
    .poll(async () => (await queue.listDeadLetters({ limit: 10 }).catch(() => undefined))?.letters.length, { timeout: 20_000 })
    .toBe(1)
})

test('a dead letter whose batch is broken is listed with what is wrong, and those around it as they are', async () => {
  const { queue } = await stand.openReady({ socketFactory: link.socketFactory })
  for (const text of ['fine', 'please REBOOT-NEVER', 'fine too']) await queue.publishDeadLetter('tv', bytesOf(text))
  link.corrupt('REBOOT-NEVER', 'REBOOT-ALWAYS'.slice(0, 12))
  const { letters } = await queue.listDeadLetters({ limit: 10 })
  expect(letters.map((letter) => letter.problem ?? textOf(letter))).toEqual(['fine', 'its checksum is wrong', 'fine too'])
  expect(letters[1]?.value).toHaveLength(0)
})

test('reading leaves nothing behind: no commits, no members, and every record is still there', async () => {
  const { queue } = await stand.openReady()
  await queue.publishDeadLetter('tv', bytesOf('a'))
  for (let round = 0; round < 2; round++) expect((await queue.listDeadLetters({ limit: 10 })).letters).toHaveLength(1)
  const admin = stand.kafka.admin()
  await admin.connect()
  try {
    const { groups } = await admin.listGroups()
    const ours = groups.map(({ groupId }) => groupId).filter((name) => name.startsWith(stand.names.deadLetterGroupPrefix))
    expect(ours).toHaveLength(2)
    for (const groupId of ours) {
      const [offsets] = await admin.fetchOffsets({ groupId, topics: [stand.names.deadLetter] })
      expect(offsets?.partitions.map(({ offset }) => offset)).toEqual(['-1'])
      expect((await admin.describeGroups([groupId])).groups[0]?.members).toEqual([])
    }
  } finally {
    await admin.disconnect()
  }
})

test('what is purged while a list is on its way is left out of it, and the rest is not', async () => {
  const { queue } = await stand.openReady()
  for (const text of ['a', 'b', 'c', 'd', 'e']) await queue.publishDeadLetter('tv', bytesOf(text))
  const topic = stand.names.deadLetter
  const purge = async () => {
    const admin = stand.kafka.admin()
    await admin.connect()
    // kafkajs knows no leaders of a topic that it has not been asked about.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
    await admin.disconnect()
  }
  const letters = createDeadLetterTopic({
    // The offsets have been asked for when the consumer connects.
    kafka: Object.assign(Object.create(stand.kafka), {
      consumer: (options: ConsumerConfig) => {
        const consumer = stand.kafka.consumer(options)
        return Object.assign(Object.create(consumer), { connect: () => purge().then(() => consumer.connect()) })
      },
    }),
    topic,
    groupPrefix: stand.names.deadLetterGroupPrefix,
    timeoutMs: 20_000,
    leaveTimeoutMs: 5_000,
    closing: new AbortController().signal,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  })
  const page = await letters.listDeadLetters({ limit: 10 })
  expect(page.letters.map((letter) => textOf(letter))).toEqual(['c', 'd', 'e'])
  expect(page.more).toBe(false)
})

test('a partition that has no leader at the first questions is asked about again', async () => {
  const { queue } = await stand.openReady()
  for (const text of ['a', 'b']) await queue.publishDeadLetter('tv', bytesOf(text))
  let refusals = 3
  const notLed = () =>
    new KafkaJSProtocolError(
      Object.assign(new Error('not the leader'), { type: 'NOT_LEADER_FOR_PARTITION', code: 6, retriable: true }),
    )
  const letters = createDeadLetterTopic({
    kafka: Object.assign(Object.create(stand.kafka), {
      admin: () => {
        const admin = stand.kafka.admin()
        const fetchTopicOffsets = async (topic: string) => {
          if (refusals-- > 0) throw notLed()
          return admin.fetchTopicOffsets(topic)
        }
        return Object.assign(Object.create(admin), { fetchTopicOffsets })
      },
    }),
    topic: stand.names.deadLetter,
    groupPrefix: stand.names.deadLetterGroupPrefix,
    timeoutMs: 60_000,
    leaveTimeoutMs: 5_000,
    closing: new AbortController().signal,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  })
  expect((await letters.listDeadLetters({ limit: 10 })).letters.map((letter) => textOf(letter))).toEqual(['a', 'b'])
  refusals = 1
  expect(await letters.purgeDeadLettersBefore(Date.now() + 60_000)).toBe(2)
})

test('closing the queue ends a reading that is under way', async () => {
  const { queue } = await stand.openReady({ socketFactory: link.socketFactory })
  await queue.publishDeadLetter('tv', bytesOf('a'))
  const reading = queue.listDeadLetters({ limit: 10 })
  const refused = expect(reading).rejects.toMatchObject(unavailable)
  await queue.close()
  await refused
})
