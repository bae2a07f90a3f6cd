import { afterEach, expect, test } from 'vitest'
import { type EdgeLease, EdgeLeaseState } from '../../gen/push/internal/v1/registry.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createEdgeLinks, sweepPeriodMs, unlistedMs } from './edge-links.ts'
import { defaultLinkLimits } from './link.ts'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

/** An edge at an address that nobody can be dialled at. */
const row = { edgeId: 'e1', edgeAddress: '127.0.0.1:1' }
const { LIVE, SUSPECT, LAPSED } = EdgeLeaseState

/** Links in steered time, and a directory that shows the edge in this state; undefined: it does not have it. */
function linksWith(state: EdgeLeaseState | undefined) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const shown = { state, known: true }
  const directory = {
    get: (edgeId: string): EdgeLease | undefined =>
      shown.state === undefined
        ? undefined
        : {
            edgeId,
            name: 'e',
            address: row.edgeAddress,
            zone: '',
            connectionCount: 0,
            connectionLimit: 0,
            draining: false,
            state: shown.state,
            expireTime: 0,
          },
    get known() {
      return shown.known
    },
  }
  const links = createEdgeLinks({ clock, random: systemRandom, log: silentLog, metrics, directory, limits: defaultLinkLimits })
  closers.push(() => links.close())
  return {
    clock,
    links,
    shown,
    linkCount: () => metricValue(metrics, 'push_router_edge_links'),
    /** Owes the edge a poke, which it cannot be dialled for. */
    async owe() {
      const link = links.to(row)
      link.owePoke({ deviceId: 'd', sessionId: 's' })
      await clock.advance(10)
      await expect.poll(() => link.state, { timeout: 10_000 }).toBe('down')
      return link
    },
    /** Lets so much time pass, in steps of a second with time for the dials between. */
    async pass(ms: number) {
      for (let passed = 0; passed < ms; passed += 1_000) {
        await clock.advance(1_000)
        await new Promise<void>((resolve) => setImmediate(resolve))
      }
    },
  }
}

test('an edge that has lapsed and cannot be reached is not dialled any more for what it is owed, and its link is let go', async () => {
  const { clock, links, shown, linkCount, owe, pass } = linksWith(LAPSED)
  const link = await owe()
  expect(await linkCount()).toBe(1)
  await pass(sweepPeriodMs)
  expect(await linkCount()).toBe(0)
  // A dial that was under way ends, and no other follows.
  await expect.poll(() => link.state, { timeout: 10_000 }).toBe('idle')
  await clock.advance(60_000)
  expect(link.state).toBe('idle')
  // Without a dial it is known to be gone, until its lease is valid again.
  expect(links.isGone(row, true)).toBe(true)
  expect(links.isGone(row, false)).toBe(false)
  shown.state = LIVE
  await pass(sweepPeriodMs)
  expect(links.isGone(row, true)).toBe(false)
  expect(links.to(row)).not.toBe(link)
})

test('a route to an edge that was let go dials it anew', async () => {
  const { links, owe } = linksWith(SUSPECT)
  const link = await owe()
  expect(links.isGone(row, true)).toBe(true)
  expect(links.to(row)).not.toBe(link)
  expect(links.isGone(row, true)).toBe(false)
})

test('an edge whose lease lapses when it is asked for, by what came with the row, is let go at once', async () => {
  const { links, linkCount, owe } = linksWith(SUSPECT)
  await owe()
  expect(links.isGone(row, false)).toBe(false)
  expect(links.isGone(row, true)).toBe(true)
  expect(await linkCount()).toBe(0)
})

test.each([LIVE, SUSPECT])('an edge that cannot be reached and has not lapsed is dialled on (state %s)', async (state) => {
  const { linkCount, links, owe, pass } = linksWith(state)
  const link = await owe()
  await pass(unlistedMs + 2 * sweepPeriodMs)
  expect(await linkCount()).toBe(1)
  expect(links.to(row)).toBe(link)
})

test('an edge that the directory has no more is let go when that has been so for a while, and not before there is a picture', async () => {
  const { linkCount, shown, owe, pass } = linksWith(undefined)
  shown.known = false
  await owe()
  await pass(unlistedMs + 2 * sweepPeriodMs)
  expect(await linkCount()).toBe(1)
  shown.known = true
  await pass(sweepPeriodMs)
  shown.state = LIVE
  await pass(sweepPeriodMs)
  shown.state = undefined
  await pass(unlistedMs)
  expect(await linkCount()).toBe(1)
  await pass(2 * sweepPeriodMs)
  expect(await linkCount()).toBe(0)
})

test('a link that is not used is let go when its edge has lapsed', async () => {
  const { links, linkCount, shown, pass } = linksWith(LIVE)
  links.to(row)
  await pass(2 * sweepPeriodMs)
  expect(await linkCount()).toBe(1)
  shown.state = LAPSED
  await pass(sweepPeriodMs)
  expect(await linkCount()).toBe(0)
})
