import { expect, test } from 'vitest'
import { createSeen } from './seen.ts'

test('an id is new, then running, then answered the way it was answered first', () => {
  const seen = createSeen(10)
  expect(seen.look('m')).toEqual({ state: 'new' })
  seen.start('m')
  expect(seen.look('m')).toEqual({ state: 'running' })
  seen.answer({ id: 'm', refusal: 'no' })
  expect(seen.look('m')).toEqual({ state: 'answered', answer: { id: 'm', refusal: 'no' } })
})

test('the memory is bounded: the oldest answered ids go first, running ones stay', () => {
  const seen = createSeen(2)
  seen.start('running')
  for (const id of ['a', 'b', 'c']) seen.answer({ id })
  expect(seen.answeredCount).toBe(2)
  expect(seen.look('a')).toEqual({ state: 'new' })
  expect(seen.look('c').state).toBe('answered')
  expect(seen.look('running')).toEqual({ state: 'running' })
})
