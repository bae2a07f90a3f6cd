import { expect, onTestFinished, test, vi } from 'vitest'
import { InboxReadyResult } from '../../gen/push/internal/v1/edge.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { type AskFrame, LinkAsks } from './link-asks.ts'

const poke = (pokeId: number): AskFrame => ({ poke: { deviceId: 'd', sessionId: 's', pokeId } })

/** Asks under the numbers from 1 to `count`; `answers` has what was said to each, by number. */
function asksOf(count: number) {
  const clock = new SteeredClock()
  const asks = new LinkAsks(clock)
  const answers = new Map<number, number | string>()
  for (let id = 1; id <= count; id++) void asks.add(id, poke(id), 1_000).then((answer) => answers.set(id, answer))
  return { clock, asks, answers }
}

test('asks are sent oldest first, each once, without those that are settled by then', () => {
  const { asks } = asksOf(5)
  expect(asks.takeSendable(2)).toEqual([poke(1), poke(2)])
  asks.settle(4, InboxReadyResult.ACCEPTED)
  expect(asks.sendable).toBe(true)
  expect(asks.takeSendable(10)).toEqual([poke(3), poke(5)])
  expect(asks.sendable).toBe(false)
  expect(asks.size).toBe(4)
})

test('one that is not answered in time is unanswered, whether it was sent or not', async () => {
  const { clock, asks, answers } = asksOf(2)
  asks.takeSendable(1)
  await clock.advance(1_001)
  expect([...answers.values()]).toEqual(['unanswered', 'unanswered'])
  expect(asks.sendable).toBe(false)
})

test('settling very many that are not sent searches for none of them', async () => {
  const { asks, answers } = asksOf(20_000)
  onTestFinished(() => void vi.restoreAllMocks())
  const searches = vi.spyOn(Array.prototype, 'indexOf')
  const moves = vi.spyOn(Array.prototype, 'splice')
  asks.settleAll('gone')
  expect([searches.mock.calls.length, moves.mock.calls.length]).toEqual([0, 0])
  vi.restoreAllMocks()
  expect([asks.size, asks.sendable]).toEqual([0, false])
  await Promise.resolve()
  expect(new Set(answers.values())).toEqual(new Set(['gone']))
  expect(answers.size).toBe(20_000)
})
