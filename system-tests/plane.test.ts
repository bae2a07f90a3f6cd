import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { seededRandom } from '../service-kit/random.ts'
import { type Fleet, startFleet } from './fleet/fleet.ts'
import { type Plane, startPlane } from './plane/plane.ts'
import { connectPublisher, type Publisher } from './plane/publisher.ts'
import { checkRun, failures, startLoad, untilSettled } from './run.ts'

const seed = Date.now() % 1_000_000
const random = seededRandom(seed)
const deviceCount = 500
const messageCount = 4_000

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
    edgeEnv: { EDGE_LIFETIME_MS: '20000', EDGE_LIFETIME_JITTER_MS: '15000', EDGE_SLOT_MAX_MS: '2000' },
  })
  publisher = connectPublisher(plane.routerAddresses)
  fleet = await startFleet({ deviceCount, edges: () => plane.edges.map((edge) => edge.fact('device_address')), random })
  await fleet.allConnected(30_000)
}, 120_000)

afterAll(async () => {
  await fleet?.close()
  publisher?.close()
  await plane?.close()
})

test('500 devices reconnect at random, and every message comes to its own, once, or says why not', async () => {
  const deviceIds = fleet.devices.map(({ deviceId }) => deviceId)
  const stopMoving = fleet.move({ meanStayMs: 10_000 })
  const load = startLoad(
    publisher,
    { publisherCount: 16, deviceIds: [...deviceIds, 'nobody-1', 'nobody-2'], routerCount: 2, random },
    messageCount,
  )
  await load.done
  await stopMoving()
  const run = { plane, fleet, publisher }
  await untilSettled(run, 30_000)

  const counts = checkRun('plane', seed, run)
  const sessionCount = fleet.logs.flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions)).length
  process.stderr.write(`sessions: ${sessionCount}\n`)
  expect(failures(publisher.published)).toEqual([])
  expect(counts.accepted).toBe(messageCount)
  // Devices are away for a small part of the time; some messages are for nobody.
  expect(counts.delivered).toBeGreaterThan(messageCount * 0.9)
  // Enough happened for the promises to be put to the test.
  expect(counts.ordered).toBeGreaterThan(messageCount / 10)
  expect(sessionCount).toBeGreaterThan(deviceCount * 2)
  expect(plane.defects()).toEqual([])
}, 120_000)
