import { expect, test } from 'vitest'
import { createSeen } from './seen.ts'

test('an id is new, then running, then answered the way it was answered first', () => {
  const seen = createSeen(10, 1_000)
  expect(seen.look('m')).toEqual({ state: 'new' })
  seen.start('m')
  expect(seen.look('m')).toEqual({ state: 'running' })
  seen.answer({ id: 'm', refusal: 'no' })
  expect(seen.look('m')).toEqual({ state: 'answered', answer: { id: 'm', refusal: 'no' } })
})

test('the memory is bounded: the oldest answered ids go first, running ones stay', () => {
  const seen = createSeen(2, 1_000)
  seen.start('running')
  for (const id of ['a', 'b', 'c']) seen.answer({ id })
  expect(seen.answeredCount).toBe(2)
  expect(seen.look('a')).toEqual({ state: 'new' })
  expect(seen.look('c').state).toBe('answered')
  expect(seen.look('running')).toEqual({ state: 'running' })
})

test('what a running message was answered so far is kept for its repeats', () => {
  const seen = createSeen(10, 1_000)
  seen.start('m')
  seen.acknowledge({ id: 'm' })
  expect(seen.look('m')).toEqual({ state: 'running', answer: { id: 'm' } })
})

test('results are bounded in bytes: the oldest are forgotten, and their messages remain acknowledged', () => {
  const seen = createSeen(3, 100)
  const result = { status: 'ok', data: 'x'.repeat(40) } as const
  for (const id of ['a', 'b', 'c']) seen.answer({ id, result })
  expect(seen.look('a')).toEqual({ state: 'answered', answer: { id: 'a' } })
  expect(seen.look('b')).toEqual({ state: 'answered', answer: { id: 'b', result } })
  expect(seen.look('c')).toEqual({ state: 'answered', answer: { id: 'c', result } })
  // What goes because of the number of ids gives its bytes back.
  for (const id of ['d', 'e', 'f']) seen.answer({ id })
  seen.answer({ id: 'g', result })
  seen.answer({ id: 'h', result })
  expect(seen.look('g')).toEqual({ state: 'answered', answer: { id: 'g', result } })
})
