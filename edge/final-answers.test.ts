import { expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { unwritten } from './entry.ts'
import { FinalAnswers, finalAnswersMax, finalAnswerTtlMs } from './final-answers.ts'

const facts = unwritten(OutcomeKind.ACKNOWLEDGED, 's')

test('an answer is remembered for two minutes, by device and message', async () => {
  const clock = new SteeredClock()
  const answers = new FinalAnswers(clock)
  answers.remember('d', 'm', facts)
  expect(answers.find('d', 'm')).toBe(facts)
  expect(answers.find('e', 'm')).toBeUndefined()
  await clock.advance(finalAnswerTtlMs - 1)
  expect(answers.find('d', 'm')).toBe(facts)
  await clock.advance(1)
  expect(answers.find('d', 'm')).toBeUndefined()
  answers.remember('d', 'n', facts)
  expect(answers.size).toBe(1)
})

test('at the bound the oldest go first', () => {
  const answers = new FinalAnswers(new SteeredClock())
  for (let index = 0; index <= finalAnswersMax; index++) answers.remember('d', `m${index}`, facts)
  expect(answers.size).toBe(finalAnswersMax)
  expect(answers.find('d', 'm0')).toBeUndefined()
  expect(answers.find('d', 'm1')).toBe(facts)
})
