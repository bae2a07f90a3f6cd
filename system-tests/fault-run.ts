import { expect, inject, onTestFinished } from 'vitest'
import { seededRandom } from '../service-kit/random.ts'
import type { CheckOptions } from './checker.ts'
import { startFleet } from './fleet/fleet.ts'
import { type PlaneOptions, startPlane } from './plane/plane.ts'
import { connectPublisher } from './plane/publisher.ts'
import type { ServiceProcess } from './plane/service-process.ts'
import { checkRun, failures, type LoadOptions, type Run, startLoad } from './run.ts'
import type { PublishedMessage } from './story.ts'

/** Of this test run: everything left to chance comes of it. */
export const seed = Date.now() % 1_000_000
export const testTimeoutMs = 180_000
export const settleTimeoutMs = 45_000
/** One that was outdone by an attempt of its own comes back after 30 to 60 s. */
export const comeBackTimeoutMs = 70_000

/** What a plane of a fault test is made of. */
export interface FaultRunOptions extends Partial<PlaneOptions> {
  readonly registryCount: number
  readonly routerCount: number
  readonly edgeCount: number
  readonly deviceCount: number
  /** Accounts that devices log in to, in turn. Default: none. */
  readonly accountIds?: readonly string[]
}

/** Edges count as gone after seconds, where the fault is one that lasts. */
export const shortLeases = {
  registryEnv: { REGISTRY_EDGE_LEASE_PERIOD_MS: '5000', REGISTRY_EDGE_READ_PERIOD_MS: '500' },
  edgeEnv: { EDGE_LEASE_TTL_MS: '5000' },
}

/** A plane of its own for each test, with devices that stay where they are unless something drives them away. */
export async function startRun(options: FaultRunOptions) {
  const random = seededRandom(seed)
  const { registryCount, deviceCount, accountIds = [], routerEnv, edgeEnv, ...parts } = options
  const plane = await startPlane({
    kafkaBrokers: inject('kafkaBrokers'),
    cassandra: inject('cassandra'),
    registryClocksAheadMs: Array.from({ length: registryCount }, (_, index) => index * 5_000),
    ...parts,
    routerEnv: { ROUTER_HOLD_TIME_MS: '30000', ...routerEnv },
    edgeEnv: { EDGE_DRAIN_NOTICE_MS: '500', EDGE_DRAIN_MS: '2000', EDGE_DRAIN_GRACE_MS: '2000', ...edgeEnv },
  })
  onTestFinished(() => plane.close())
  // What a load balancer knows: which edges run and take connections.
  const closedEdges = new Set<ServiceProcess>()
  const openEdges = () => plane.edges.filter((edge) => edge.running && !closedEdges.has(edge))
  const fleet = await startFleet({
    deviceCount,
    edges: () => openEdges().map((edge) => edge.fact('device_address')),
    random,
    accountIds,
  })
  onTestFinished(() => fleet.close())
  const publisher = connectPublisher(plane.routerAddresses)
  onTestFinished(() => publisher.close())
  await fleet.allConnected(comeBackTimeoutMs)
  const deviceIds = fleet.devices.map(({ deviceId }) => deviceId)
  const run: Run = { plane, fleet, publisher }
  /** Time to live above 0 only: nothing of it may be lost. Stops with the test at the latest. */
  const load = (over: Partial<LoadOptions> = {}) => {
    const running = startLoad(publisher, {
      publisherCount: 8,
      deviceIds,
      routerCount: options.routerCount,
      random,
      nowOrNeverShare: 0,
      ...over,
    })
    onTestFinished(() => running.stop())
    return running
  }
  return { ...run, run, random, deviceIds, load, closedEdges }
}

export type FaultRun = Awaited<ReturnType<typeof startRun>>

export function isQueued({ mode }: PublishedMessage): boolean {
  return mode === 'QUEUED'
}

/** Queued messages that were sent after this moment, in ms, and accepted. */
export function acceptedSince(published: readonly PublishedMessage[], since: number): PublishedMessage[] {
  return published.filter((message) => isQueued(message) && message.answer !== undefined && message.sentAt > since)
}

export function nth<T>(all: readonly T[], index: number): T {
  const one = all[index]
  if (one === undefined) throw new Error(`there is no number ${index}`)
  return one
}

/**
 * No call failed but some few, and those were told to be repeated: that is the truth, and no loss. On a busy machine a few run into a deadline, though nothing
 * is wrong; one in twenty is far below what any outage of a part costs.
 */
export function expectFewRefused(published: readonly PublishedMessage[]): void {
  const failed = failures(published)
  expect(failed.filter((failure) => !/: (UNAVAILABLE|DEADLINE_EXCEEDED) /.test(failure))).toEqual([])
  expect(failed.length).toBeLessThanOrEqual(published.length / 20)
}

/** Every accepted message came to its device. */
export async function expectAllDelivered(title: string, run: Run, options?: CheckOptions): Promise<void> {
  const counts = await checkRun(title, seed, run, options)
  expect(counts.undelivered).toEqual({})
  expect(counts.delivered).toBeGreaterThan(100)
}
