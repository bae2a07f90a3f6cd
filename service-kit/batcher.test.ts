import { expect, test } from 'vitest'
import { createBatcher } from './batcher.ts'

function setUp(bounds: { maxBatch?: number; maxInFlight?: number; maxQueued?: number } = {}) {
  const batches: { items: number[]; finish: (results?: number[]) => void; fail: (error: Error) => void }[] = []
  const batcher = createBatcher<number, number>({
    maxBatch: 10,
    maxInFlight: 2,
    maxQueued: 100,
    ...bounds,
    runBatch: (items) =>
      new Promise((resolve, reject) => {
        batches.push({ items, finish: (results = items.map((item) => item * 2)) => resolve(results), fail: reject })
      }),
  })
  return { batcher, batches }
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

test('what waits at the end of the turn goes out together and each gets its own result', async () => {
  const { batcher, batches } = setUp()
  const results = Promise.all([1, 2, 3].map((item) => batcher.run(item)))
  expect(batches).toHaveLength(0)
  await nextTurn()
  expect(batches.map((batch) => batch.items)).toEqual([[1, 2, 3]])
  batches[0]?.finish()
  expect(await results).toEqual([2, 4, 6])
})

test('batches are bounded in size and number; the rest goes when one is back', async () => {
  const { batcher, batches } = setUp({ maxBatch: 2, maxInFlight: 2 })
  const results = Promise.all([1, 2, 3, 4, 5].map((item) => batcher.run(item)))
  await nextTurn()
  expect(batches.map((batch) => batch.items)).toEqual([
    [1, 2],
    [3, 4],
  ])
  expect(batcher.queued).toBe(1)
  batches[0]?.finish()
  await nextTurn()
  await nextTurn()
  expect(batches[2]?.items).toEqual([5])
  batches[1]?.finish()
  batches[2]?.finish()
  expect(await results).toEqual([2, 4, 6, 8, 10])
})

test('more than may wait is refused at once with BACKLOG_FULL, and the others go on', async () => {
  const { batcher, batches } = setUp({ maxQueued: 1 })
  const first = batcher.run(1)
  await expect(batcher.run(2)).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
  await nextTurn()
  batches[0]?.finish()
  expect(await first).toBe(2)
})

test('a failed batch fails its own items only', async () => {
  const { batcher, batches } = setUp({ maxBatch: 1 })
  const failing = batcher.run(1)
  const fine = batcher.run(2)
  await nextTurn()
  batches[0]?.fail(new Error('gone'))
  batches[1]?.finish()
  await expect(failing).rejects.toThrow('gone')
  expect(await fine).toBe(4)
})

test('results that do not match the items fail the batch instead of getting mixed up', async () => {
  const { batcher, batches } = setUp()
  const both = Promise.allSettled([batcher.run(1), batcher.run(2)])
  await nextTurn()
  batches[0]?.finish([2])
  expect((await both).map((result) => result.status)).toEqual(['rejected', 'rejected'])
})
