import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PartitionProgress } from './partition-progress.ts'

test('nothing above the lowest unfinished record may be committed', () => {
  const progress = new PartitionProgress()
  for (const offset of [5n, 6n, 9n]) progress.receive(offset)
  expect(progress.finish(6n)).toBeUndefined()
  expect(progress.finish(9n)).toBeUndefined()
  expect(progress.finish(5n)).toBe(10n)
})

test('gaps between offsets do not hold the mark', () => {
  const progress = new PartitionProgress()
  progress.receive(5n)
  progress.receive(40n)
  expect(progress.finish(5n)).toBe(40n)
  expect(progress.finish(40n)).toBe(41n)
})

test('a record that is read again is ignored', () => {
  const progress = new PartitionProgress()
  expect(progress.receive(7n)).toBe(true)
  expect(progress.receive(7n)).toBe(false)
  expect(progress.finish(7n)).toBe(8n)
  expect(progress.receive(7n)).toBe(false)
  expect(progress.openCount).toBe(0)
})

test('whatever the order of finishing, the mark is the lowest unfinished offset and never goes back', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.nat(500), { minLength: 1, maxLength: 60 }), fc.infiniteStream(fc.nat()), (numbers, choices) => {
      const offsets = numbers.sort((a, b) => a - b)
      const progress = new PartitionProgress()
      for (const offset of offsets) progress.receive(BigInt(offset))
      const open = [...offsets]
      let mark = BigInt(-1)
      while (open.length > 0) {
        const [offset = 0] = open.splice((choices.next().value ?? 0) % open.length, 1)
        const risen = progress.finish(BigInt(offset))
        if (risen !== undefined) {
          expect(risen > mark).toBe(true)
          mark = risen
        }
        const lowest = open.length > 0 ? BigInt(Math.min(...open)) : BigInt((offsets.at(-1) ?? 0) + 1)
        if (BigInt(offset) < lowest) expect(mark).toBe(lowest)
        else expect(mark < lowest || mark === lowest).toBe(true)
      }
    }),
  )
})
