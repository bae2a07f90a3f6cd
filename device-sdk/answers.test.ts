import { expect, test } from 'vitest'
import { createAnswers } from './answers.ts'

const ids = (count: number) => Array.from({ length: count }, (_, index) => `m${index}`)

test('acknowledgements go together, at most 100 to a frame, and refusals one by one', () => {
  const answers = createAnswers(1_000)
  for (const id of ids(250)) answers.owe({ id })
  answers.owe({ id: 'bad', refusal: 'no' })
  const frames = answers.takeFrames(500)
  expect(frames.map((frame) => (frame.type === 'ack' ? frame.ids.length : frame))).toEqual([
    { type: 'nack', id: 'bad', reason: 'no' },
    100,
    100,
    50,
  ])
  expect(answers.takeFrames(100)).toEqual([])
})

test('an edge that takes fewer ids gets fewer', () => {
  const answers = createAnswers(1_000)
  for (const id of ids(5)) answers.owe({ id })
  expect(answers.takeFrames(2)).toEqual([
    { type: 'ack', ids: ['m0', 'm1'] },
    { type: 'ack', ids: ['m2', 'm3'] },
    { type: 'ack', ids: ['m4'] },
  ])
})

test('what was sent after the edge was last heard is owed again when the connection breaks', () => {
  const answers = createAnswers(1_000)
  answers.owe({ id: 'old' })
  answers.takeFrames(100)
  answers.heard()
  answers.owe({ id: 'sent' })
  answers.takeFrames(100)
  answers.owe({ id: 'unsent', refusal: 'no' })
  expect(answers.takeUnproven()).toEqual([{ id: 'sent' }, { id: 'unsent', refusal: 'no' }])
  expect(answers.takeUnproven()).toEqual([])
})

test('a second answer to the same message takes the first one’s place', () => {
  const answers = createAnswers(10)
  answers.owe({ id: 'm', refusal: 'no' })
  answers.owe({ id: 'm' })
  expect(answers.takeFrames(100)).toEqual([{ type: 'ack', ids: ['m'] }])
})

test('above the bound the oldest answer is forgotten, and said to be', () => {
  const answers = createAnswers(2)
  expect([answers.owe({ id: 'a' }), answers.owe({ id: 'b' }), answers.owe({ id: 'c' })]).toEqual([true, true, false])
  expect(answers.takeFrames(100)).toEqual([{ type: 'ack', ids: ['b', 'c'] }])
})

test('a refusal is cut to the 1,024 characters that the protocol takes', () => {
  const answers = createAnswers(2)
  answers.owe({ id: 'a', refusal: 'x'.repeat(2_000) })
  expect(answers.takeFrames(100)).toEqual([{ type: 'nack', id: 'a', reason: 'x'.repeat(1_024) }])
})

test('a result takes the place of the acknowledgement that is still owed, and has a frame of its own', () => {
  const answers = createAnswers(10)
  answers.owe({ id: 'a' })
  answers.owe({ id: 'b' })
  answers.owe({ id: 'a', result: { status: 'ok', data: { n: 1 } } })
  expect(answers.takeFrames(100)).toEqual([
    { type: 'result', id: 'a', status: 'ok', data: { n: 1 } },
    { type: 'ack', ids: ['b'] },
  ])
  expect(answers.takeUnproven()).toEqual([{ id: 'b' }, { id: 'a', result: { status: 'ok', data: { n: 1 } } }])
})
