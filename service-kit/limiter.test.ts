import { expect, test } from 'vitest'
import { createLimiter } from './limiter.ts'
import { createMetrics } from './metrics.ts'
import { metricValue } from './testing/metric-value.ts'

function setUp(bounds: { concurrentMax: number; queuedMax: number }) {
  const metrics = createMetrics()
  const limiter = createLimiter({ name: 'inbox', metrics, ...bounds })
  const started: string[] = []
  const finish = new Map<string, () => void>()
  const job = (name: string) => () => {
    started.push(name)
    return new Promise<string>((resolve) => finish.set(name, () => resolve(name)))
  }
  return { limiter, metrics, started, job, finish: (name: string) => finish.get(name)?.() }
}

const settle = () => new Promise((resolve) => setImmediate(resolve))

test('so many run at once, the others in the order they came', async () => {
  const { limiter, started, job, finish } = setUp({ concurrentMax: 1, queuedMax: 5 })
  const all = Promise.all(['a', 'b', 'c'].map((name) => limiter.run(job(name))))
  await settle()
  expect(started).toEqual(['a'])
  finish('a')
  await settle()
  expect(started).toEqual(['a', 'b'])
  finish('b')
  await settle()
  finish('c')
  expect(await all).toEqual(['a', 'b', 'c'])
  expect(limiter.running).toBe(0)
})

test('a full queue refuses at once, says when to come back, and counts it', async () => {
  const { limiter, metrics, job, finish } = setUp({ concurrentMax: 1, queuedMax: 1 })
  const running = limiter.run(job('a'))
  const queued = limiter.run(job('b'))
  await expect(limiter.run(job('c'))).rejects.toMatchObject({ reason: 'BACKLOG_FULL', retryAfterMs: 1000 })
  expect(await metricValue(metrics, 'push_limiter_refused_total', { limiter: 'inbox' })).toBe(1)
  expect(await metricValue(metrics, 'push_limiter_queued', { limiter: 'inbox' })).toBe(1)
  finish('a')
  await settle()
  finish('b')
  await Promise.all([running, queued])
})

test('a queued job whose caller has gone is dropped and never runs', async () => {
  const { limiter, metrics, started, job, finish } = setUp({ concurrentMax: 1, queuedMax: 5 })
  const running = limiter.run(job('a'))
  const caller = new AbortController()
  const dropped = limiter.run(job('b'), { signal: caller.signal })
  const after = limiter.run(job('c'))
  caller.abort(new Error('caller has gone'))
  await expect(dropped).rejects.toThrow('caller has gone')
  expect(await metricValue(metrics, 'push_limiter_dropped_total', { limiter: 'inbox' })).toBe(1)
  finish('a')
  await settle()
  expect(started).toEqual(['a', 'c'])
  finish('c')
  await Promise.all([running, after])
})

test('a job that fails makes room like any other', async () => {
  const { limiter } = setUp({ concurrentMax: 1, queuedMax: 0 })
  await expect(limiter.run(() => Promise.reject(new Error('no')))).rejects.toThrow('no')
  expect(await limiter.run(() => Promise.resolve('yes'))).toBe('yes')
})
