import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { readEdgeConfig } from '../config.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { createRetryAfter } from '../retry-after.ts'
import { addresses } from '../testing/lone-port.ts'
import { addressKey } from './address-key.ts'
import { createAdmission } from './admission.ts'
import { createDeadlineQueue } from './deadline-queue.ts'
import { type PortLimits, portLimits } from './port-limits.ts'

function admissionOf(limited: Partial<PortLimits>) {
  const clock = new SteeredClock()
  const random = seededRandom(3)
  const metrics = createMetrics()
  const limits = { ...portLimits(readEdgeConfig({})), connects: { ratePerSecond: 1e6, burst: 1e9 }, ...limited }
  const retryAfter = createRetryAfter({ clock, random, ratePerSecond: 1 })
  const admission = createAdmission({ limits: () => limits, retryAfter, clock, random, metrics: createEdgeMetrics(metrics) })
  /** A connection that comes and ends at once; whether it was let in. */
  const visit = (address: string, well = false) => {
    const visit = admission.arrive(address, '10.0.0.1')
    if (well) visit.succeeded()
    visit.leave()
    return visit.refusal?.reason ?? 'let in'
  }
  return {
    admission,
    clock,
    visit,
    metric: (name: string, labels?: Record<string, string>) => metricValue(metrics, name, labels),
  }
}

const addressOf = (index: number) => `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`

test('an IPv6 address counts as its /64, a mapped one as IPv4', () => {
  expect(addressKey('192.0.2.1')).toBe('192.0.2.1')
  expect(addressKey('::ffff:192.0.2.1')).toBe('192.0.2.1')
  expect(addressKey('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2::/64')
  expect(addressKey('2001:0DB8:1:2::9')).toBe('2001:db8:1:2::/64')
  expect(addressKey('2001:db8::1')).toBe('2001:db8:0:0::/64')
  expect(addressKey('::1')).toBe('0:0:0:0::/64')
  expect(addressKey('fe80::1%eth0')).toBe('fe80:0:0:0::/64')
})

test('all addresses of a /64 share what one may use; the next /64 does not', () => {
  const { visit } = admissionOf({ addressConnects: { ratePerSecond: 1, burst: 2 } })
  expect(visit('2001:db8::1', true)).toBe('let in')
  expect(visit('2001:db8::2', true)).toBe('let in')
  expect(visit('2001:db8::3', true)).toBe('address_rate')
  expect(visit('2001:db8:0:1::1', true)).toBe('let in')
})

test('a flood from very many addresses finds the same room: the ones not seen for longest go', async () => {
  const { admission, visit, metric } = admissionOf({ addressesMax: 1_000 })
  for (let index = 0; index < 100_000; index++) visit(addressOf(index))
  expect(admission.addressCount).toBeLessThanOrEqual(1_000)
  expect(await metric('push_edge_addresses', { state: 'remembered' })).toBe(1_000)
  expect(await metric('push_edge_addresses_forgotten_total')).toBe(99_000)
})

test('an address with a connection is never forgotten, however many come after it', () => {
  const { admission, visit } = admissionOf({ addressesMax: 100, addressConnectionLimit: 1 })
  const first = admission.arrive('192.0.2.1', 'p')
  for (let index = 0; index < 1_000; index++) visit(addressOf(index))
  expect(visit('192.0.2.1')).toBe('address_connections')
  first.leave()
  first.leave()
  expect(visit('192.0.2.1')).toBe('let in')
})

test('an address with nothing held against it is not remembered; one with something is, until it is made good', async () => {
  const { admission, clock, visit } = admissionOf({ addressConnects: { ratePerSecond: 1, burst: 3 } })
  visit('192.0.2.1', true)
  expect(admission.addressCount).toBe(1)
  await clock.advance(3_000)
  visit('192.0.2.2', true)
  expect(admission.addressCount).toBe(1)
})

test('the wait of an address grows with its own refusals, and leaves those of others alone', () => {
  const { admission } = admissionOf({ addressConnectionLimit: 1, refusedSocketsMax: 0 })
  admission.arrive('192.0.2.1', 'p')
  admission.arrive('192.0.2.2', 'p')
  const longest = (address: string, count: number) => {
    const waits = Array.from({ length: count }, () => Number(admission.arrive(address, 'p').refusal?.headers?.['retry-after']))
    return Math.max(...waits)
  }
  expect(longest('192.0.2.2', 20)).toBeLessThanOrEqual(11)
  longest('192.0.2.1', 20_000)
  expect(longest('192.0.2.1', 100)).toBeGreaterThan(100)
  expect(longest('192.0.2.1', 100)).toBeLessThanOrEqual(300)
  expect(longest('192.0.2.2', 20)).toBeLessThanOrEqual(12)
})

test('failures count when they show, and hold for connections of the address that had come before them', () => {
  const { admission } = admissionOf({ addressFailures: { ratePerSecond: 1, burst: 2 } })
  const visits = Array.from({ length: 4 }, () => admission.arrive('192.0.2.1', 'p'))
  for (const visit of visits) expect(visit.refusal).toBeUndefined()
  const answers = visits.map((visit) => {
    const refusal = visit.request()
    if (refusal === undefined) visit.failed()
    return refusal?.reason
  })
  expect(answers).toEqual([undefined, undefined, 'address_failures', 'address_failures'])
  // Told once, it is no second failure that the connection then ends.
  for (const visit of visits.slice(0, 2)) visit.leave()
  expect(admission.arrive('192.0.2.2', 'p').request()).toBeUndefined()
})

test('further requests of a connection cost what connections cost', () => {
  const { admission } = admissionOf({ addressConnects: { ratePerSecond: 1, burst: 3 } })
  const visit = admission.arrive('192.0.2.1', 'p')
  expect([1, 2, 3, 4].map(() => visit.request()?.reason)).toEqual([undefined, undefined, undefined, 'address_rate'])
  const all = admissionOf({ connects: { ratePerSecond: 1, burst: 2 } }).admission.arrive('192.0.2.1', 'p')
  expect([1, 2, 3].map(() => all.request()?.reason)).toEqual([undefined, undefined, 'rate'])
})

test('refused connections are heard at a rate too, of one address and of all', async () => {
  const { admission, clock } = admissionOf({ addressConnectionLimit: 1, refusedSocketsMax: 20 })
  const heard = (address: string, count: number) => {
    let all = 0
    for (let index = 0; index < count; index++) {
      const visit = admission.arrive(address, 'p')
      if (visit.refusal !== undefined && !visit.cut) all++
      visit.leave()
    }
    return all
  }
  for (const address of ['192.0.2.1', '192.0.2.2', '192.0.2.3']) admission.arrive(address, 'p')
  expect(heard('192.0.2.1', 50)).toBe(16)
  expect(heard('192.0.2.2', 50)).toBe(4)
  await clock.advance(1_000)
  expect(heard('192.0.2.2', 50)).toBe(16)
})

test('a proxy that speaks for itself is let in, whatever others do', () => {
  const { admission } = admissionOf({ connects: { ratePerSecond: 1, burst: 1 } })
  expect(admission.arrive('192.0.2.1', 'p').refusal).toBeUndefined()
  expect(admission.arrive('192.0.2.2', 'p').refusal?.reason).toBe('rate')
  expect(admission.arrive(undefined, 'p').refusal).toBeUndefined()
})

test('what an operator calls unlimited is let in by whatever name it comes', () => {
  const { visit } = admissionOf({
    addressConnects: { ratePerSecond: 1, burst: 1 },
    unlimitedAddresses: addresses('192.0.2.0/24'),
  })
  for (const address of ['192.0.2.9', '::ffff:192.0.2.9', '192.0.2.9']) expect(visit(address)).toBe('let in')
})

test('what has the same time is judged in the order in which it came, with one timer', async () => {
  const clock = new SteeredClock()
  const expired: string[] = []
  let timeoutMs = 100
  const queue = createDeadlineQueue<string>({ clock, timeoutMs: () => timeoutMs, expired: (item) => void expired.push(item) })
  queue.add('a')
  await clock.advance(50)
  queue.add('b')
  queue.add('c')
  expect(clock.pendingTimers).toBe(1)
  queue.remove('b')
  await clock.advance(50)
  expect(expired).toEqual(['a'])
  await clock.advance(49)
  expect(expired).toEqual(['a'])
  await clock.advance(1)
  expect(expired).toEqual(['a', 'c'])
  expect(clock.pendingTimers).toBe(0)
  queue.add('d')
  timeoutMs = 10
  queue.changed()
  await clock.advance(10)
  expect(expired).toEqual(['a', 'c', 'd'])
  queue.add('e')
  queue.stop()
  expect([queue.size, clock.pendingTimers]).toEqual([0, 0])
})
