import { expect, test } from 'vitest'
import type { DeliverResponse } from '../gen/push/internal/v1/edge.ts'
import { CloseSessionResult, InboxReadyResult, OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { AnswerStream } from './answer-stream.ts'
import { unwritten } from './entry.ts'

async function framesOf(stream: AnswerStream): Promise<DeliverResponse[]> {
  const frames: DeliverResponse[] = []
  for await (const frame of stream.frames()) frames.push(frame)
  return frames
}

const facts = (detail = '') => unwritten(OutcomeKind.NACKED, 's', detail)

test('what is told in one turn goes out as one frame, of every kind', async () => {
  const stream = new AnswerStream({ onSlow: () => {} })
  const frames = stream.frames()
  const first = frames.next()
  stream.outcome(1, facts())
  stream.poke({ pokeId: 2, result: InboxReadyResult.NOT_CONNECTED })
  stream.outcome(3, facts())
  stream.close({ closeId: 4, result: CloseSessionResult.CLOSED })
  expect((await first).value).toMatchObject({
    outcomes: [{ deliveryId: 1 }, { deliveryId: 3 }],
    inboxReadyAnswers: [{ pokeId: 2 }],
    closeSessionAnswers: [{ closeId: 4 }],
  })
})

test('a frame holds at most 256 answers and about 256 KiB, in order and none lost', async () => {
  const stream = new AnswerStream({ onSlow: () => {} })
  for (let id = 0; id < 600; id++) stream.outcome(id, facts())
  for (let id = 600; id < 900; id++) stream.outcome(id, facts('x'.repeat(1_024)))
  stream.end()
  const frames = await framesOf(stream)
  for (const { outcomes } of frames) {
    expect(outcomes.length).toBeLessThanOrEqual(256)
    expect(JSON.stringify(outcomes).length).toBeLessThan(300 * 1024)
  }
  expect(frames.flatMap(({ outcomes }) => outcomes.map(({ deliveryId }) => deliveryId))).toEqual([...Array(900).keys()])
})

test('what waits at the end still goes out; what comes after it does not', async () => {
  const stream = new AnswerStream({ onSlow: () => {} })
  stream.outcome(1, facts())
  stream.end()
  stream.outcome(2, facts())
  expect(stream.ended).toBe(true)
  expect((await framesOf(stream)).flatMap(({ outcomes }) => outcomes)).toMatchObject([{ deliveryId: 1 }])
})

test('a router that does not take its answers loses its stream, not the memory of the edge', async () => {
  let slow = 0
  const stream = new AnswerStream({ waitingMax: 10, onSlow: () => slow++ })
  for (let id = 0; id < 100; id++) stream.outcome(id, facts())
  expect(stream.ended).toBe(true)
  expect(slow).toBe(1)
  await expect(stream.frames().next()).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
})
