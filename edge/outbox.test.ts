import { expect, test } from 'vitest'
import type { Entry } from './entry.ts'
import { Outbox, type OutboxBudget } from './outbox.ts'

let count = 0
const entry = (more: Partial<Entry> = {}): Entry => {
  count++
  return {
    messageId: `m${count}`,
    lane: 1,
    reserved: more.lane === 0,
    collapse: undefined,
    acceptTime: count,
    waitsSince: count,
    expiresAt: 1_000,
    accountId: '',
    frameBytes: 10,
    frame: undefined,
    waiters: [],
    wantsResult: false,
    written: undefined,
    acknowledged: undefined,
    ...more,
  }
}
const outboxOf = (limits = { bytes: 1_000, count: 100 }, budget: OutboxBudget = { usedBytes: 0, limitBytes: 1e9 }) =>
  new Outbox(limits, budget)
const drained = (outbox: Outbox) => {
  const ids: string[] = []
  for (let next = outbox.next(false); next !== undefined; next = outbox.next(false)) {
    ids.push(next.messageId)
    outbox.remove(next)
  }
  return ids
}

test('HIGH goes first, LOW last, and within a priority the order of arrival', () => {
  const outbox = outboxOf()
  for (const [messageId, lane] of [
    ['low', 2],
    ['n1', 1],
    ['high', 0],
    ['n2', 1],
  ] as const) {
    outbox.offer(entry({ messageId, lane }))
  }
  expect(drained(outbox)).toEqual(['high', 'n1', 'n2', 'low'])
  expect(outbox).toMatchObject({ bytes: 0, count: 0 })
})

test('a newer version takes the place of the older one, which is handed back', () => {
  const outbox = outboxOf()
  const older = entry({ messageId: 'v1', collapse: 'k', frameBytes: 30 })
  outbox.offer(older)
  outbox.offer(entry({ messageId: 'behind' }))
  expect(outbox.offer(entry({ messageId: 'v2', collapse: 'k', frameBytes: 20 }))).toEqual({ kind: 'kept', replaced: older })
  expect(outbox).toMatchObject({ bytes: 30, count: 2 })
  expect(drained(outbox)).toEqual(['v2', 'behind'])
})

test('a version that is older than the one that waits is not kept; equal times go by id', () => {
  const outbox = outboxOf()
  outbox.offer(entry({ messageId: 'b', collapse: 'k', acceptTime: 5 }))
  expect(outbox.offer(entry({ messageId: 'z', collapse: 'k', acceptTime: 4 }))).toEqual({ kind: 'older' })
  expect(outbox.offer(entry({ messageId: 'a', collapse: 'k', acceptTime: 5 }))).toEqual({ kind: 'older' })
  expect(outbox.offer(entry({ messageId: 'c', collapse: 'k', acceptTime: 5 })).kind).toBe('kept')
  expect(drained(outbox)).toEqual(['c'])
})

test('a newer version of another priority goes where that priority goes', () => {
  const outbox = outboxOf()
  outbox.offer(entry({ messageId: 'v1', collapse: 'k', lane: 2 }))
  outbox.offer(entry({ messageId: 'normal' }))
  expect(outbox.offer(entry({ messageId: 'v2', collapse: 'k', lane: 0 })).kind).toBe('kept')
  expect(outbox.count).toBe(2)
  expect(drained(outbox)).toEqual(['v2', 'normal'])
})

test('what would pass the bytes or the count is not kept, and nothing changes', () => {
  const outbox = outboxOf({ bytes: 400, count: 8 })
  expect(outbox.offer(entry({ frameBytes: 301 }))).toEqual({ kind: 'full' })
  expect(outbox.offer(entry({ frameBytes: 295 })).kind).toBe('kept')
  expect(outbox.offer(entry({ frameBytes: 6 }))).toEqual({ kind: 'full' })
  expect(outbox).toMatchObject({ bytes: 295, count: 1 })
  for (let index = 0; index < 5; index++) expect(outbox.offer(entry({ frameBytes: 1 })).kind).toBe('kept')
  expect(outbox.offer(entry({ frameBytes: 0 }))).toEqual({ kind: 'full' })
})

test('a quarter is kept for HIGH and RECOVERY', () => {
  const outbox = outboxOf({ bytes: 400, count: 8 })
  for (let index = 0; index < 6; index++) outbox.offer(entry())
  expect(outbox.offer(entry())).toEqual({ kind: 'full' })
  expect(outbox.offer(entry({ reserved: true })).kind).toBe('kept')
  expect(outbox.offer(entry({ lane: 0 })).kind).toBe('kept')
  expect(outbox.offer(entry({ lane: 0 }))).toEqual({ kind: 'full' })
})

test('a newer version that fits only in the place of the older one is kept', () => {
  const outbox = outboxOf({ bytes: 400, count: 4 })
  outbox.offer(entry({ collapse: 'k', frameBytes: 290 }))
  expect(outbox.offer(entry({ collapse: 'k', frameBytes: 300 })).kind).toBe('kept')
  expect(outbox.offer(entry({ collapse: 'k', frameBytes: 301 }))).toEqual({ kind: 'full' })
  expect(outbox).toMatchObject({ bytes: 300, count: 1 })
})

test('all outboxes share one budget, and give back what they held', () => {
  const budget = { usedBytes: 0, limitBytes: 25 }
  const [one, other] = [outboxOf(undefined, budget), outboxOf(undefined, budget)]
  one.offer(entry())
  one.offer(entry())
  expect(other.offer(entry())).toEqual({ kind: 'full' })
  one.takeAll()
  expect(budget.usedBytes).toBe(0)
  expect(other.offer(entry()).kind).toBe('kept')
})

test('RECOVERY passes others of its priority only when asked for what is reserved', () => {
  const outbox = outboxOf()
  outbox.offer(entry({ messageId: 'user' }))
  outbox.offer(entry({ messageId: 'heal', reserved: true }))
  expect(outbox.next(false)?.messageId).toBe('user')
  expect(outbox.next(true)?.messageId).toBe('heal')
  outbox.takeAll()
  expect(outbox.next(true)).toBeUndefined()
})

test('what has waited too long is taken out; a newer version has its own age', () => {
  const outbox = outboxOf()
  outbox.offer(entry({ messageId: 'a', waitsSince: 5 }))
  outbox.offer(entry({ messageId: 'v1', collapse: 'k', waitsSince: 5 }))
  outbox.offer(entry({ messageId: 'v2', collapse: 'k', waitsSince: 7 }))
  expect(outbox.takeOlder(4)).toEqual([])
  expect(outbox.takeOlder(6).map(({ messageId }) => messageId)).toEqual(['a'])
  expect(drained(outbox)).toEqual(['v2'])
})

test('what has expired is taken out, the rest stays', () => {
  const outbox = outboxOf()
  outbox.offer(entry({ messageId: 'a', expiresAt: 5 }))
  outbox.offer(entry({ messageId: 'b', expiresAt: 6 }))
  expect(outbox.takeExpired(5).map(({ messageId }) => messageId)).toEqual(['a'])
  expect(drained(outbox)).toEqual(['b'])
})
