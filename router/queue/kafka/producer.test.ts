import { expect, test } from 'vitest'
import { checkAnswers } from './producer.ts'

const answer = (topicName: string, partition: number, errorCode = 0) => ({ topicName, partition, errorCode })

test('a partition that is not among the answers was not written, whatever kafkajs says', () => {
  const [a, b] = [{ value: 'a' }, { value: 'b' }]
  const messages = new Map([['push.high', [a, b]]])
  const placed = new Map([
    [a, 0],
    [b, 3],
  ])
  expect(() => checkAnswers(messages, placed, [answer('push.high', 0), answer('push.high', 3)])).not.toThrow()
  expect(() => checkAnswers(messages, placed, [answer('push.high', 0)])).toThrow('push.high/3')
  expect(() => checkAnswers(messages, placed, [answer('push.high', 0), answer('push.low', 3)])).toThrow('push.high/3')
  expect(() => checkAnswers(messages, placed, [answer('push.high', 0), answer('push.high', 3, 7)])).toThrow('push.high/3')
})
