import { expect, test } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { AnswerStream, answerFrameBytes, answersWaitingBytesMax } from './answer-stream.ts'
import { unwritten } from './entry.ts'

const data = Buffer.alloc(48 * 1024)
const facts = { ...unwritten(OutcomeKind.RESULT, 'session'), result: { ok: true, data, message: 'done' } }

test('results go out in frames of bounded size', async () => {
  const stream = new AnswerStream({ onSlow: () => {} })
  for (let id = 1; id <= 12; id++) stream.outcome(id, facts)
  stream.end()
  const sizes: number[] = []
  for await (const { outcomes } of stream.frames()) {
    sizes.push(outcomes.length)
    for (const { result } of outcomes) expect(result).toEqual(facts.result)
  }
  const most = Math.floor(answerFrameBytes / data.length)
  expect(sizes).toEqual([most, most, 12 - 2 * most])
})

test('a router that does not take them is let go by their bytes, long before their number; taken ones count no more', async () => {
  let slow = 0
  const stream = new AnswerStream({ onSlow: () => slow++ })
  const most = Math.ceil(answersWaitingBytesMax / data.length)
  for (let id = 1; id < most; id++) stream.outcome(id, facts)
  const frames = stream.frames()
  const taken = (await frames.next()).value?.outcomes.length ?? 0
  expect(taken).toBeGreaterThan(0)
  for (let id = 0; id < taken; id++) stream.outcome(most + id, facts)
  expect(slow).toBe(0)
  stream.outcome(5_000, facts)
  stream.outcome(5_001, facts)
  expect(slow).toBe(1)
  await expect(frames.next()).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
})
