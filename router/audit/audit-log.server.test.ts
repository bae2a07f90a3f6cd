import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, inject, test } from 'vitest'
import { AuditRecord } from '../../gen/push/internal/v1/queue.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { type KafkaLink, openKafkaLink } from '../queue/testing/kafka-link.ts'
import { type KafkaStand, kafkaStand } from '../queue/testing/kafka-stand.ts'
import { type AuditLog, createAuditLog } from './audit-log.ts'
import { openAuditJournal } from './journal-file.ts'

let stand: KafkaStand
let link: KafkaLink
let folder: string
const opened: AuditLog[] = []

beforeEach(async () => {
  stand = kafkaStand(inject('kafkaBrokers'), { partitionCount: 3 })
  link = await openKafkaLink(inject('kafkaBrokers')[0] ?? '')
  folder = await mkdtemp(join(tmpdir(), 'audit-kafka-'))
})
afterEach(async () => {
  link.release()
  link.mend()
  for (const audit of opened.splice(0)) await audit.close()
  await stand.close()
  await link.close()
  await rm(folder, { recursive: true, force: true })
})

const act = (name: string) => ({ principal: 'ops', action: 'push.v1.OperationsService/DrainEdge', target: 'edge/e1', name })

/** What lies on the audit topic, in order: all is about one target. */
async function follow() {
  const found: AuditRecord[] = []
  const consumer = stand.kafka.consumer({ groupId: `${stand.names.audit}.test`, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topic: stand.names.audit, fromBeginning: true })
  await consumer.run({
    eachMessage: async ({ message }) => void found.push(AuditRecord.decode(message.value ?? Buffer.alloc(0))),
  })
  return {
    /** Each once, in the order of its first coming. */
    names: () => [...new Map(found.map(({ auditId, name }) => [auditId, name])).values()],
    close: () => consumer.disconnect(),
  }
}

test('what is done while Kafka is cut off waits in the journal, and comes to the topic behind what was there, in its order', async () => {
  const { queue } = await stand.openReady({ socketFactory: link.socketFactory })
  const metrics = createMetrics()
  const audit = createAuditLog({
    queue,
    journal: openAuditJournal(join(folder, 'journal')),
    journalRecordsMax: 100,
    clock: systemClock,
    random: systemRandom,
    log: recordingLog(),
    metrics,
  })
  opened.push(audit)
  const durable = (to: string) => metricValue(metrics, 'push_router_audit_records_total', { to })

  await audit.record(act('before'))
  expect(await durable('queue')).toBe(1)
  // It hangs, as seen from here, before it is known to be away.
  link.hold('answers')
  await audit.record(act('hangs'))
  expect(audit.waitingCount).toBe(1)
  link.cut()
  link.release()
  for (let n = 1; n <= 20; n++) await audit.record(act(`away ${n}`))
  expect(audit.waitingCount).toBe(21)
  link.mend()
  await audit.record(act('behind them'))
  await expect.poll(() => audit.waitingCount, { timeout: 60_000, interval: 200 }).toBe(0)
  await audit.record(act('after'))

  const topic = await follow()
  const wanted = ['before', 'hangs', ...Array.from({ length: 20 }, (_, n) => `away ${n + 1}`), 'behind them', 'after']
  await expect.poll(topic.names, { timeout: 30_000, interval: 200 }).toEqual(wanted)
  await topic.close()
}, 150_000)

test('what a router has left in its journal is uploaded by the next one', async () => {
  const path = join(folder, 'journal')
  const parts = {
    journalRecordsMax: 100,
    clock: systemClock,
    random: systemRandom,
    log: recordingLog(),
    metrics: createMetrics(),
  }
  link.cut()
  const away = stand.open({ socketFactory: link.socketFactory })
  const first = createAuditLog({ ...parts, queue: away.queue, journal: openAuditJournal(path) })
  opened.push(first)
  await first.record(act('a'))
  await first.record(act('b'))
  await first.close()
  await away.queue.close()

  const { queue } = await stand.openReady()
  const second = createAuditLog({ ...parts, metrics: createMetrics(), queue, journal: openAuditJournal(path) })
  opened.push(second)
  await expect.poll(() => second.waitingCount, { timeout: 60_000, interval: 200 }).toBe(0)
  const topic = await follow()
  await expect.poll(topic.names, { timeout: 30_000, interval: 200 }).toEqual(['a', 'b'])
  await topic.close()
}, 150_000)
