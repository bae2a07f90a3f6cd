import { expect, test } from 'vitest'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { createServiceLimits, type Work } from './service-limits.ts'

function open() {
  const metrics = createMetrics()
  const limits = createServiceLimits({ itemsMax: 1000, storeStepsMax: 2, metrics })
  const ends: (() => void)[] = []
  /** A call that stays under way until all are ended. */
  const occupy = (work: Work, items: number) =>
    limits[work].admit(items, () => new Promise<void>((resolve) => void ends.push(resolve)))
  return { metrics, limits, occupy, endAll: () => ends.splice(0).forEach((end) => void end()) }
}

test('as the registry fills up, kinds of work are refused one after the other, registrations and leases last', async () => {
  const { limits, occupy, endAll } = open()
  const order: Work[] = ['receipts', 'counts', 'inbox', 'lookups', 'registrations', 'leases']
  const taken = async () => {
    const open: Work[] = []
    for (const work of order)
      await limits[work]
        .admit(1, async () => {})
        .then(
          () => open.push(work),
          () => {},
        )
    return open
  }
  const calls = [occupy('registrations', 499)]
  expect(await taken()).toEqual(order)
  for (const [more, refused] of [
    [1, 1],
    [100, 2],
    [100, 3],
    [150, 4],
    [130, 5],
  ] as const) {
    calls.push(occupy('leases', more))
    expect(await taken()).toEqual(order.slice(refused))
  }
  calls.push(occupy('leases', 20))
  expect(await taken()).toEqual([])
  endAll()
  await Promise.all(calls)
  expect(await taken()).toEqual(order)
})

test('a refused call is told to come back, and counted', async () => {
  const { metrics, occupy, endAll } = open()
  const call = occupy('lookups', 850)
  expect(await metricValue(metrics, 'push_registry_items', { work: 'lookups' })).toBe(850)
  await expect(occupy('lookups', 1)).rejects.toMatchObject({ reason: 'RATE_EXCEEDED', retryAfterMs: 500 })
  expect(await metricValue(metrics, 'push_registry_refused_calls_total', { work: 'lookups' })).toBe(1)
  endAll()
  await call
  expect(await metricValue(metrics, 'push_registry_items', { work: 'lookups' })).toBe(0)
})

test('a call that fails gives its place back', async () => {
  const { limits } = open()
  for (let n = 0; n < 10; n += 1) {
    await expect(limits.lookups.admit(500, () => Promise.reject(new Error('failed')))).rejects.toThrow('failed')
  }
})

test('steps of one kind wait for each other, not for those of another kind', async () => {
  const { limits } = open()
  const never = new AbortController().signal
  const ends: (() => void)[] = []
  const started: string[] = []
  const step = (work: Work, name: string) =>
    limits[work].step(never, () => {
      started.push(name)
      return new Promise<void>((resolve) => void ends.push(resolve))
    })
  const steps = [step('lookups', 'l1'), step('lookups', 'l2'), step('lookups', 'l3'), step('registrations', 'r1')]
  await Promise.resolve()
  expect(started).toEqual(['l1', 'l2', 'r1'])
  ends[0]?.()
  await steps[0]
  expect(started).toEqual(['l1', 'l2', 'r1', 'l3'])
  for (const end of ends) end()
  await Promise.all(steps)
})
