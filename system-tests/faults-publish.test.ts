import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Kafka, logLevel, Partitioners } from 'kafkajs'
import { expect, inject, onTestFinished, test } from 'vitest'
import { QueuedMessage } from '../gen/push/internal/v1/queue.ts'
import {
  comeBackTimeoutMs,
  expectAllDelivered,
  expectFewRefused,
  type FaultRun,
  nth,
  settleTimeoutMs,
  startRun,
  testTimeoutMs,
} from './fault-run.ts'
import { untilServing } from './plane/plane.ts'
import type { Publisher } from './plane/publisher.ts'
import { until, untilFinished, untilSettled } from './run.ts'
import type { PublishedMessage } from './story.ts'

/** How long something that goes on by itself may take to do so. */
const goOnTimeoutMs = 60_000
const priorities = ['HIGH', 'NORMAL', 'LOW'] as const

/** Publishes one message under a key of its own to each device, through this router. */
function publishKeyed({ publisher, deviceIds }: FaultRun, router: number, name: string): Promise<PublishedMessage[]> {
  return Promise.all(
    deviceIds.map(async (deviceId, index) => {
      const first = await publisher.publish(router, {
        deviceId,
        mode: 'QUEUED',
        priority: nth(priorities, index % priorities.length),
        ttlMs: 600_000,
        idempotencyKey: `${name}-${deviceId}`,
      })
      return first.answer ? first : untilAccepted(publisher, router, first)
    }),
  )
}

/** Publishes each once more through this router. */
async function repeatAll({ publisher }: FaultRun, router: number, messages: readonly PublishedMessage[]): Promise<void> {
  await Promise.all(messages.map((message) => untilAccepted(publisher, router, message)))
}

/** As publishers do: a router that has just come back may not be found at once, and a keyed call is safe to repeat. */
async function untilAccepted(publisher: Publisher, router: number, message: PublishedMessage): Promise<PublishedMessage> {
  const giveUpAt = Date.now() + goOnTimeoutMs
  for (;;) {
    const call = await publisher.repeat(router, message)
    if (call.answer !== undefined) return call
    if (Date.now() > giveUpAt) throw new Error(`${call.key} is not accepted: ${call.failure}`)
    await delay(200)
  }
}

/** All calls of each message had the same id, its handler has seen it once, and it reads as one message with one end. */
async function expectOneMessageEach({ publisher, fleet }: FaultRun, messages: readonly PublishedMessage[]): Promise<void> {
  const handled = fleet.logs.flatMap(({ processes }) => processes.flatMap((one) => one.handled))
  for (const { key, deviceId } of messages) {
    const calls = publisher.published.filter((call) => call.key === key && call.answer !== undefined)
    const ids = [...new Set(calls.map(({ answer }) => answer?.messageId ?? ''))]
    expect(calls.length).toBeGreaterThan(1)
    expect(ids).toHaveLength(1)
    expect(handled.filter((one) => one.key === key)).toHaveLength(1)
    const { devices } = await publisher.read(0, nth(ids, 0))
    expect(devices).toEqual([{ deviceId, state: 'ACKNOWLEDGED', reason: '', final: true }])
  }
}

/** Partitions of all priorities that this router has now. */
function partitionCount({ plane }: FaultRun, router: number): Promise<number> {
  return plane.metricOf(nth(plane.routers, router), 'push_router_queue_leases')
}

test(
  'repeats of one publish through two routers, while one leaves and joins again, are one message',
  async () => {
    const started = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 60 })
    const { plane, fleet, run } = started
    // Every third device is away: what is meant for it is stored more than once.
    const away = fleet.devices.filter((_, index) => index % 3 === 0)
    await Promise.all(away.map((device) => device.stop()))
    const first = await publishKeyed(started, 0, 'first')
    await repeatAll(started, 1, first)
    // The second batch is under way, with no answer of any device, when a router leaves and its partitions move.
    for (const edge of plane.edges) edge.pause()
    const second = await publishKeyed(started, 0, 'second')
    const leaving = nth(plane.routers, 1)
    const left = leaving.stop()
    await repeatAll(started, 0, second)
    for (const edge of plane.edges) edge.resume()
    expect((await left).code).toBe(0)
    await repeatAll(started, 0, [...first, ...second])
    // And the third, when it comes back and takes some of them.
    const third = await publishKeyed(started, 0, 'third')
    await leaving.restart()
    await untilServing(leaving.fact('address'))
    await expect.poll(() => partitionCount(started, 1), { timeout: goOnTimeoutMs }).toBeGreaterThan(0)
    for (const router of [0, 1]) await repeatAll(started, router, [...first, ...second, ...third])
    await untilSettled(run, settleTimeoutMs)
    for (const device of away) device.start()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered('repeats across a rebalance', run)
    await expectOneMessageEach(started, [...first, ...second, ...third])
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'repeats of one publish, whose first was with a router that is killed, are one message',
  async () => {
    const started = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 60 })
    const { plane, run } = started
    const before = await publishKeyed(started, 0, 'before')
    await untilSettled(run, settleTimeoutMs)
    for (const edge of plane.edges) edge.pause()
    const during = await publishKeyed(started, 0, 'during')
    const inFlight = () => Promise.all([plane.inFlight(0), plane.inFlight(1)])
    await expect.poll(async () => (await inFlight()).reduce((sum, count) => sum + count, 0), { timeout: 20_000 }).toBe(60)
    // Neither has told anything to a device. How the partitions are shared is the group's affair.
    const counts = await inFlight()
    const victim = nth(counts, 0) >= nth(counts, 1) ? 0 : 1
    await nth(plane.routers, victim).kill()
    for (const edge of plane.edges) edge.resume()
    await repeatAll(started, 1 - victim, [...before, ...during])
    await nth(plane.routers, victim).restart()
    await untilServing(nth(plane.routerAddresses, victim))
    await repeatAll(started, victim, [...before, ...during])
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered('repeats across a crash', run)
    await expectOneMessageEach(started, [...before, ...during])
  },
  testTimeoutMs,
)

interface ListedLetter {
  readonly position: string
  readonly reason: string
  readonly origin: string
  readonly error: string
}

/** What an operator sees. */
async function listDeadLetters(routerAddress: string): Promise<ListedLetter[]> {
  const cli = fileURLToPath(new URL('../publisher-cli/push-cli.js', import.meta.url))
  const args = [cli, 'dead-letters', 'list', '--limit', '1000', '--json', '--address', routerAddress]
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 90_000 })
  return stdout
    .split('\n')
    .filter((line) => line !== '')
    .map((line): ListedLetter => JSON.parse(line))
}

/** Records that no router can make anything of, each for another reason. */
function poison(index: number, deviceId: string): Buffer | null {
  const forNobody = { messageId: 'id', acceptTime: 1, expireTime: 2, message: { payload: Buffer.from('{}') } }
  switch (index % 4) {
    case 0:
      return randomBytes(200)
    case 1:
      return Buffer.from(JSON.stringify({ target: deviceId }))
    case 2:
      return null
    default:
      return Buffer.from(QueuedMessage.encode(QueuedMessage.fromPartial(forNobody)).finish())
  }
}

test(
  'a partition full of poison under load: each record becomes a dead letter with its origin, the partition goes on, nobody else notices',
  async () => {
    const started = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 60 })
    const { plane, run, load, publisher, deviceIds } = started
    const topic = `${plane.topicPrefix}normal`
    const partition = 1
    const kafka = new Kafka({ clientId: 'test', brokers: inject('kafkaBrokers'), logLevel: logLevel.NOTHING })
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    const admin = kafka.admin()
    onTestFinished(async () => {
      await Promise.all([producer.disconnect(), admin.disconnect()])
    })
    await Promise.all([producer.connect(), admin.connect()])
    const loads = [load({ directShare: 0, pauseMs: 50 }), load({ directShare: 1, publisherCount: 4, pauseMs: 50 })]
    expect(await until(() => publisher.published.length > 100, goOnTimeoutMs)).toBe(true)

    const batchCount = 10
    const batchSize = 30
    const origins: string[] = []
    for (let batch = 0; batch < batchCount; batch++) {
      const messages = Array.from({ length: batchSize }, (_, index) => {
        const deviceId = nth(deviceIds, (batch * batchSize + index) % deviceIds.length)
        return { key: deviceId, value: poison(index, deviceId), partition }
      })
      const [answer] = await producer.send({ topic, acks: -1, messages })
      for (let index = 0; index < batchSize; index++) origins.push(`${topic}:${partition}:${Number(answer?.baseOffset) + index}`)
      // Good ones lie between them.
      const sent = publisher.published.length
      expect(await until(() => publisher.published.length > sent + 20, goOnTimeoutMs)).toBe(true)
    }
    const deadLetters = () => plane.metricSum('routers', 'push_router_dead_letters_total')
    await expect.poll(deadLetters, { timeout: settleTimeoutMs }).toBeGreaterThanOrEqual(origins.length)
    await Promise.all(loads.map((one) => one.stop()))
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('a partition full of poison', run)
    expectFewRefused(publisher.published)

    // Operators see each, where it was and why; one that was read again after a rebalance twice.
    const letters = await listDeadLetters(nth(plane.routerAddresses, 0))
    expect([...new Set(letters.map(({ origin }) => origin))].sort()).toEqual(origins.sort())
    expect(letters.filter(({ reason, error }) => reason !== 'UNDECODABLE' || error === '')).toEqual([])
    // Nothing is left of the partition.
    const committed = async () => {
      const [group] = await admin.fetchOffsets({ groupId: `${plane.topicPrefix}router.normal`, topics: [topic] })
      return group?.partitions.find((one) => one.partition === partition)?.offset
    }
    const end = (await admin.fetchTopicOffsets(topic)).find((one) => one.partition === partition)?.high
    await expect.poll(committed, { timeout: goOnTimeoutMs }).toBe(end)
  },
  testTimeoutMs,
)
