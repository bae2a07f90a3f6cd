import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  acceptedSince,
  comeBackTimeoutMs,
  expectAllDelivered,
  expectFewRefused,
  isQueued,
  nth,
  shortLeases,
  startRun,
} from './fault-run.ts'
import { expectNoOrphans } from './orphans.ts'
import { failures, until, untilSettled } from './run.ts'
import { type CassandraServers, startCassandra } from './servers/cassandra.ts'

/** Nodes that are started again on two cores beside a whole plane take their time. */
const nodesTestTimeoutMs = 600_000
const startTimeoutMs = 240_000
/** Three nodes and a plane have enough to do on two cores. Messages outlive what it takes to start nodes again there. */
const gently = { pauseMs: 200, ttlMs: 600_000 }
/** How long something that goes on by itself may take to do so. */
const goOnTimeoutMs = 120_000

let folder: string
let cassandra: CassandraServers

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-nodes-'))
  cassandra = await startCassandra({ nodes: 3, folder, temporary: true })
}, startTimeoutMs)

afterAll(async () => {
  await cassandra?.close()
  await rm(folder, { recursive: true, force: true, maxRetries: 5 })
})

test(
  'kill -9 of one, then of a second: with one gone nobody notices, with two accepting goes on, and nothing is lost or called offline',
  async () => {
    const holdTimeMs = 8_000
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 80,
      cassandra,
      ...shortLeases,
      registryEnv: { ...shortLeases.registryEnv, REGISTRY_CASSANDRA_REPLICATION_FACTOR: '3' },
      // Shorter than the outage: what counts is that the hold stands still meanwhile.
      routerEnv: { ROUTER_HOLD_TIME_MS: String(holdTimeMs) },
    })
    const loads = [load({ directShare: 0, publisherCount: 4, ...gently }), load({ directShare: 1, publisherCount: 2, ...gently })]
    const handledIds = () =>
      new Set(fleet.logs.flatMap(({ processes }) => processes.flatMap(({ handled }) => handled.map((one) => one.messageId))))
    const deliveredSince = (since: number) => {
      const ids = handledIds()
      return publisher.published.filter(({ sentAt, answer }) => sentAt > since && ids.has(answer?.messageId ?? '')).length
    }
    expect(await until(() => deliveredSince(0) > 100, goOnTimeoutMs)).toBe(true)

    await nth(cassandra.nodes, 0).kill()
    const firstAt = Date.now()
    // Devices come anew meanwhile, and are found.
    for (const device of fleet.devices.slice(0, 20)) device.closeConnection()
    await fleet.allConnected(comeBackTimeoutMs)
    const comeAnewAt = Date.now()
    expect(await until(() => deliveredSince(comeAnewAt) > 100, goOnTimeoutMs)).toBe(true)

    const secondAt = Date.now()
    await nth(cassandra.nodes, 1).kill()
    // Longer than a message may be held.
    const outlasted = () =>
      Date.now() > secondAt + holdTimeMs + 4_000 && acceptedSince(publisher.published, secondAt + holdTimeMs).length > 50
    expect(await until(outlasted, goOnTimeoutMs)).toBe(true)
    const endedBy = Date.now()
    await Promise.all(cassandra.nodes.slice(0, 2).map((node) => node.restart()))
    const backAt = Date.now()
    expect(await until(() => deliveredSince(backAt) > 50, goOnTimeoutMs)).toBe(true)
    await Promise.all(loads.map((one) => one.stop()))
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, goOnTimeoutMs)
    await expectNoOrphans(run)
    await untilSettled(run, goOnTimeoutMs)
    await expectAllDelivered('one, then two of three Cassandra nodes killed', run)

    expectFewRefused(publisher.published.filter(isQueued))
    const direct = publisher.published.filter((message) => !isQueued(message))
    // With one node gone direct calls go on as well; with two they are told to be repeated.
    expectFewRefused(direct.filter(({ sentAt }) => sentAt > firstAt && sentAt < secondAt - 5_000))
    expect(failures(direct).filter((failure) => !/UNAVAILABLE|DEADLINE_EXCEEDED/.test(failure))).toEqual([])
    expect(plane.settled().filter(({ state }) => state === 'DEAD_LETTERED' || state === 'DROPPED')).toEqual([])
    // Nobody was called offline while the registry could not know.
    const putAside = plane
      .settled()
      .filter(({ state, settledAt }) => state === 'STORED' && settledAt > secondAt && settledAt < endedBy)
    expect(putAside).toEqual([])
    // Who was connected when the second node went stayed so.
    const sessions = fleet.logs.flatMap(({ processes }) => processes.flatMap((process) => process.sessions))
    expect(sessions.filter(({ endedAt }) => (endedAt ?? 0) > secondAt)).toEqual([])
  },
  nodesTestTimeoutMs,
)
