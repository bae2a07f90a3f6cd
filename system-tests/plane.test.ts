import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { seededRandom } from '../service-kit/random.ts'
import { type Fleet, startFleet } from './fleet/fleet.ts'
import { type Plane, startPlane } from './plane/plane.ts'
import { connectPublisher, type Publisher } from './plane/publisher.ts'
import { checkRun, failures, startLoad, untilSettled } from './run.ts'
import type { PublishedMessage } from './story.ts'

const seed = Date.now() % 1_000_000
const random = seededRandom(seed)
const deviceCount = 500
const messageCount = 4_000
const nobody = ['nobody-1', 'nobody-2']

let plane: Plane
let fleet: Fleet
let publisher: Publisher

beforeAll(async () => {
  plane = await startPlane({
    kafkaBrokers: inject('kafkaBrokers'),
    cassandra: inject('cassandra'),
    registryClocksAheadMs: [0, 5_000],
    routerCount: 2,
    edgeCount: 3,
    // Sessions reach their lifetime during the run, and move while the older one is still open.
    edgeEnv: { EDGE_LOG_LEVEL: 'debug', EDGE_LIFETIME_MS: '20000', EDGE_LIFETIME_JITTER_MS: '15000', EDGE_SLOT_MAX_MS: '2000' },
  })
  publisher = connectPublisher(plane.routerAddresses)
  fleet = await startFleet({ deviceCount, edges: () => plane.edges.map((edge) => edge.fact('device_address')), random })
  await fleet.allConnected(90_000)
}, 240_000)

afterAll(async () => {
  await fleet?.close()
  publisher?.close()
  await plane?.close()
})

test('500 devices reconnect at random, and every message comes to its own, once, whether it was there or not', async () => {
  const deviceIds = fleet.devices.map(({ deviceId }) => deviceId)
  const stopMoving = fleet.move({ meanStayMs: 10_000 })
  const options = { publisherCount: 16, deviceIds, routerCount: 2, random }
  const load = startLoad(publisher, options, messageCount)
  // For devices that never come, some of it with time to live that ends during the run.
  const toNobody = { ...options, publisherCount: 1, deviceIds: nobody, nowOrNeverShare: 0.2 }
  await Promise.all([startLoad(publisher, toNobody, 30).done, startLoad(publisher, { ...toNobody, ttlMs: 2_000 }, 30).done])
  await load.done
  await stopMoving()
  // One that lost a connection while it registered may have been outdone by it: it comes back after 30 to 60 s.
  await fleet.allConnected(240_000)
  const run = { plane, fleet, publisher }
  await untilSettled(run, 120_000)

  const counts = await checkRun('plane', seed, run)
  const sessionCount = fleet.logs.flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions)).length
  process.stderr.write(`sessions: ${sessionCount}\n`)
  // A busy plane may tell a publisher that it cannot take a message now: nothing is lost by that, and it is rare.
  expect(failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])).toEqual([])
  const refusedCount = failures(publisher.published).length
  expect(refusedCount).toBeLessThanOrEqual(messageCount / 20)
  expect(counts.accepted).toBe(messageCount + 60 - refusedCount)
  // All have come back: only what was now or never may be missing.
  expect(missing(({ deviceId, ttlMs }) => !nobody.includes(deviceId) && ttlMs > 0)).toEqual([])
  expect(counts.stored).toBeGreaterThan(messageCount / 100)
  // What lives for two seconds may be over on a busy machine before anybody has found that its device is away.
  const ends = Object.keys(counts.undelivered)
  expect(
    ends.filter((how) => !/^(?:(?:STORED|DROPPED) (?:OFFLINE|UNREACHABLE|UNKNOWN)|EXPIRED|EXPIRED OFFLINE)$/.test(how)),
  ).toEqual([])
  expect(ends.filter((how) => how.startsWith('EXPIRED'))).not.toEqual([])
  // Enough happened for the promises to be put to the test.
  expect(counts.ordered).toBeGreaterThan(messageCount / 10)
  expect(sessionCount).toBeGreaterThan(deviceCount * 2)
  expect(plane.defects()).toEqual([])
}, 900_000)

/** Accepted messages that no handler has seen. */
function missing(which: (message: PublishedMessage) => boolean): string[] {
  const handled = new Set(fleet.logs.flatMap(({ processes }) => processes.flatMap((process) => process.handled)).map(idOf))
  return publisher.published
    .filter((message) => message.answer && which(message) && !handled.has(message.answer.messageId))
    .map(keyOf)
}
const idOf = ({ messageId }: { messageId: string }) => messageId
const keyOf = ({ key }: { key: string }) => key
