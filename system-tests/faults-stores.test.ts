import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { expectAllDelivered, nth, settleTimeoutMs, shortLeases, startRun, testTimeoutMs } from './fault-run.ts'
import { untilServing } from './plane/plane.ts'
import { failures, untilFinished, untilSettled } from './run.ts'
import { type CassandraServers, startCassandra } from './servers/cassandra.ts'
import { type KafkaServers, startKafka } from './servers/kafka.ts'

// Servers of their own: those of the run are not to be hurt.
let folder: string
let kafka: KafkaServers
let cassandra: CassandraServers

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-faults-'))
  const inFolder = { folder, temporary: true }
  ;[kafka, cassandra] = await Promise.all([startKafka({ brokers: 1, ...inFolder }), startCassandra({ nodes: 1, ...inFolder })])
}, 180_000)

afterAll(async () => {
  await Promise.all([kafka?.close(), cassandra?.close()])
  await rm(folder, { recursive: true, force: true, maxRetries: 5 })
})

test(
  'Cassandra stopped for 15 s: accepting goes on, and nothing is lost, put aside, or called offline by mistake',
  async () => {
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 100,
      cassandra,
      ...shortLeases,
      // Shorter than the stop: what counts is that the hold stands still meanwhile.
      routerEnv: { ROUTER_HOLD_TIME_MS: '8000' },
    })
    const loads = [load({ directShare: 0 }), load({ directShare: 1, publisherCount: 4 })]
    await delay(2_000)
    const node = nth(cassandra.nodes, 0)
    node.pause()
    const stoppedAt = Date.now()
    // Some devices lose their connections and cannot register anew until it is back.
    await delay(3_000)
    for (const device of fleet.devices.slice(0, 10)) device.cutConnection()
    await delay(12_000)
    node.resume()
    const resumedAt = Date.now()
    await delay(3_000)
    await Promise.all(loads.map((one) => one.stop()))
    await fleet.allConnected(60_000)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('Cassandra stopped', run)
    const queued = publisher.published.filter(({ mode }) => mode === 'QUEUED')
    expect(failures(queued)).toEqual([])
    expect(queued.filter(({ sentAt }) => sentAt > stoppedAt && sentAt < resumedAt - 1_000).length).toBeGreaterThan(100)
    // Direct calls were answered, or told to be repeated.
    expect(failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])).toEqual([])
    expect(plane.settled().filter(({ state }) => state === 'DEAD_LETTERED' || state === 'DROPPED')).toEqual([])
    // Those that were connected all the time stayed so.
    const stayed = fleet.logs.slice(10).flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions))
    expect(stayed.filter(({ endedAt }) => endedAt !== undefined)).toEqual([])
  },
  testTimeoutMs,
)

test(
  'Kafka away and back: direct messages go on meanwhile, queued ones are refused and not lost, and then all goes on',
  async () => {
    const { plane, run, load, publisher, deviceIds } = await startRun({
      registryCount: 1,
      routerCount: 2,
      edgeCount: 2,
      deviceCount: 100,
      kafkaBrokers: kafka.brokers,
    })
    const queue = load({ directShare: 0, pauseMs: 50 })
    const direct = load({ directShare: 1, publisherCount: 4, pauseMs: 50 })
    await delay(2_000)
    const broker = nth(kafka.nodes, 0)
    await broker.kill()
    const killedAt = Date.now()
    await delay(8_000)
    const restartedAt = Date.now()
    await broker.restart()
    for (const address of plane.routerAddresses) await untilServing(address)
    await delay(1_000)
    await Promise.all([queue.stop(), direct.stop()])
    // Both routers take messages again, and deliver them.
    const again = await Promise.all(
      [0, 1].map((router) =>
        publisher.publish(router, { deviceId: nth(deviceIds, router), mode: 'QUEUED', priority: 'HIGH', ttlMs: 60_000 }),
      ),
    )
    expect(failures(again)).toEqual([])
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered('Kafka away', run)
    const directs = publisher.published.filter(({ mode }) => mode === 'DIRECT')
    expect(failures(directs)).toEqual([])
    const meanwhile = directs.filter(({ sentAt }) => sentAt > killedAt && sentAt < restartedAt)
    expect(meanwhile.length).toBeGreaterThan(100)
    expect(meanwhile.filter(({ answer }) => answer?.state !== 'ACKNOWLEDGED')).toEqual([])
    expect(failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])).toEqual([])
  },
  testTimeoutMs,
)

test(
  'everything killed with 1,000 messages queued, and started again: all are delivered, also to those who come later',
  async () => {
    const { plane, fleet, run, publisher, deviceIds } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 2,
      deviceCount: 100,
      ...shortLeases,
    })
    const away = fleet.devices.filter((_, index) => index % 2 === 0)
    await Promise.all(away.map((device) => device.stop()))
    // Nothing reaches a device any more.
    for (const edge of plane.edges) edge.pause()
    const count = 1_000
    const priorities = ['HIGH', 'NORMAL', 'LOW'] as const
    await Promise.all(
      Array.from({ length: count }, (_, index) =>
        publisher.publish(index % 2, {
          deviceId: nth(deviceIds, index % deviceIds.length),
          mode: 'QUEUED',
          priority: nth(priorities, index % 3),
          ttlMs: 600_000,
        }),
      ),
    )
    expect(failures(publisher.published)).toEqual([])
    const services = [...plane.registries, ...plane.routers, ...plane.edges]
    await Promise.all(services.map((service) => service.kill()))
    await Promise.all(services.map((service) => service.restart()))
    await untilFinished(run, settleTimeoutMs)
    for (const device of away) device.start()
    await fleet.allConnected(30_000)
    await expectAllDelivered('everything restarted', run)
    expect(publisher.published.length).toBe(count)
    expect(plane.settled().filter(({ state }) => state === 'STORED').length).toBeGreaterThan(400)
  },
  testTimeoutMs,
)
