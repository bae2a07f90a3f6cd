import { expect, test } from 'vitest'
import { createClosers } from './closers.ts'
import { recordingLog } from './testing/recording-log.ts'
import { SteeredClock } from './testing/steered-clock.ts'

function setUp() {
  const clock = new SteeredClock()
  const log = recordingLog()
  return { clock, log, closers: createClosers(log, clock), closed: [] as string[] }
}

test('what was opened last is closed first, one after the other', async () => {
  const { clock, closers, closed } = setUp()
  closers.add('store', () => void closed.push('store'))
  closers.add('server', async () => {
    await clock.sleep(10)
    closed.push('server')
  })
  const closing = closers.close({ graceMs: 1000 })
  await clock.advance(20)
  expect(await closing).toEqual({ late: [] })
  expect(closed).toEqual(['server', 'store'])
  expect(clock.pendingTimers).toBe(0)
})

test('a failure is logged and stops nothing', async () => {
  const { closers, closed, log } = setUp()
  closers.add('store', () => void closed.push('store'))
  closers.add('server', () => Promise.reject(new Error('will not')))
  expect(await closers.close({ graceMs: 1000 })).toEqual({ late: [] })
  expect(closed).toEqual(['store'])
  expect(log.withPhrase('closing failed')[0]?.facts).toMatchObject({ what: 'server', cause: { message: 'will not' } })
})

test('when the grace is over the rest is closed all the same, and what does not end is named', async () => {
  const { clock, closers, closed, log } = setUp()
  closers.add('store', () => void closed.push('store'))
  closers.add('stuck', () => new Promise(() => {}))
  const closing = closers.close({ graceMs: 1000, forceMs: 500 })
  await clock.advance(999)
  expect(closed).toEqual([])
  await clock.advance(501)
  expect(await closing).toEqual({ late: ['stuck'] })
  expect(closed).toEqual(['store'])
  expect(log.withPhrase('some parts did not close in time')[0]?.facts).toEqual({ late: ['stuck'] })
  expect(clock.pendingTimers).toBe(0)
})

test('a second call joins the first and may shorten it', async () => {
  const { clock, closers, closed } = setUp()
  closers.add('slow', async () => {
    await clock.sleep(5000)
    closed.push('slow')
  })
  const first = closers.close({ graceMs: 60_000 })
  const second = closers.close({ graceMs: 0 })
  await clock.advance(1000)
  expect(await first).toEqual({ late: ['slow'] })
  expect(await second).toEqual({ late: ['slow'] })
})

test('what is opened while closing is closed at once', async () => {
  const { clock, closers, closed } = setUp()
  closers.add('slow', () => clock.sleep(10))
  const closing = closers.close({ graceMs: 1000 })
  closers.add('late comer', () => void closed.push('late comer'))
  expect(closed).toEqual(['late comer'])
  await clock.advance(10)
  await closing
})
