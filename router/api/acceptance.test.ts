import { expect, test } from 'vitest'
import { seededRandom } from '../../service-kit/random.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { emptyMessage } from '../dispatch/testing/dispatch-bench.ts'
import { createAcceptance } from './acceptance.ts'
import { checkMessage } from './message-check.ts'

const checked = (idempotencyKey = '') =>
  checkMessage({ ...emptyMessage(), target: { $case: 'deviceId', value: 'd' }, idempotencyKey })

test('accept times rise strictly while the clock stands still', () => {
  const acceptance = createAcceptance(new SteeredClock(), seededRandom(1))
  const times = [1, 2, 3].map(() => acceptance.accept(checked(), 'p').acceptTime)
  expect(times[1]).toBe((times[0] ?? 0) + 1)
  expect(times[2]).toBe((times[0] ?? 0) + 2)
})

test('the same key of the same principal is the same message on any router; another principal has its own', () => {
  const one = createAcceptance(new SteeredClock(), seededRandom(1))
  const other = createAcceptance(new SteeredClock(1), seededRandom(2))
  const id = one.accept(checked('k'), 'p').messageId
  expect(other.accept(checked('k'), 'p').messageId).toBe(id)
  expect(other.accept(checked('k'), 'q').messageId).not.toBe(id)
  expect(id[14]).toBe('8')
})

test('without a key every publish is a new message', () => {
  const acceptance = createAcceptance(new SteeredClock(), seededRandom(1))
  const ids = [acceptance.accept(checked(), 'p').messageId, acceptance.accept(checked(), 'p').messageId]
  expect(ids[0]).not.toBe(ids[1])
  expect(ids[0]?.[14]).toBe('7')
})
