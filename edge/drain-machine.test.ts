import { expect, test } from 'vitest'
import { type DrainEffect, type DrainEvent, DrainMachine, type DrainPace, slotLeadMs } from './drain-machine.ts'

const bounds = { noticeMs: 5_000, overMs: 10_000, graceMs: 2_000, closingMs: 6_000 }

/** A drain with sessions that do as told, each `staysMs` after its slot, on a clock that goes by in looks. */
function drainOf(count: number, { staysMs = 0, ...over }: Partial<typeof bounds> & { staysMs?: number } = {}) {
  const machine = new DrainMachine({ ...bounds, ...over })
  const effects: DrainEffect[] = []
  /** When each session that was asked leaves. */
  let leaves: number[] = []
  let nowMs = 0
  let untold = count
  const slots: number[] = []
  const handle = (event: DrainEvent) => {
    for (const effect of machine.handle(event, nowMs)) {
      effects.push(effect)
      if (effect.type === 'evict') {
        untold -= effect.slotsMs.length
        slots.push(...effect.slotsMs.map((slotMs) => nowMs + slotMs))
        leaves.push(...effect.slotsMs.map((slotMs) => nowMs + slotMs + staysMs))
      } else if (effect.type === 'keep') {
        untold += leaves.length
        leaves = []
      } else if (effect.type === 'cut') leaves = []
    }
  }
  return {
    machine,
    handle,
    /** The effects since the last call, without the slots. */
    effects: () => effects.splice(0).filter(({ type }) => type !== 'evict'),
    /** Slots by when they begin, in order. */
    slots,
    present: () => untold + leaves.length,
    come: (more: number) => {
      untold += more
    },
    pass(ms: number) {
      for (const end = nowMs + ms; nowMs < end; ) {
        nowMs += 100
        leaves = leaves.filter((at) => at > nowMs)
        handle({ type: 'look', untold, present: untold + leaves.length })
      }
    },
    begun: (between: readonly [number, number]) => slots.filter((at) => at >= between[0] && at < between[1]).length,
  }
}

test('a drain goes through its states: not ready, no new devices, asked one after the other, gone', () => {
  const drain = drainOf(100)
  expect(drain.machine.state).toBe('serving')
  drain.handle({ type: 'start' })
  expect(drain.effects()).toEqual([{ type: 'report', draining: true }])
  drain.pass(4_900)
  expect(drain.machine.state).toBe('not_ready')
  expect(drain.effects()).toEqual([])
  drain.pass(100)
  expect(drain.machine.state).toBe('evicting')
  expect(drain.effects()).toEqual([{ type: 'take devices', taken: false }])
  expect(drain.machine.ratePerSecond).toBe(10)
  drain.pass(9_900)
  expect(drain.present()).toBeLessThanOrEqual(2)
  drain.pass(1_200)
  expect(drain.machine.state).toBe('gone')
  expect(drain.effects()).toEqual([])
})

test('the slots are even, and nobody is told more than a second before its slot', () => {
  const drain = drainOf(1_000)
  drain.handle({ type: 'start', pace: { ratePerSecond: 50 } })
  drain.pass(30_000)
  expect(drain.slots).toHaveLength(1_000)
  const gaps = drain.slots.map((at, index) => at - (drain.slots[index - 1] ?? at - 20))
  expect(Math.min(...gaps)).toBeCloseTo(20)
  expect(Math.max(...gaps)).toBeCloseTo(20)
  expect(drain.slots[0]).toBeCloseTo(bounds.noticeMs + 20)
  expect(slotLeadMs).toBe(1_000)
})

test.each<[string, DrainPace, number]>([
  ['faster', { ratePerSecond: 100 }, 100],
  ['slower', { ratePerSecond: 2 }, 2],
  ['another time to spread over, counted from then on', { overMs: 20_000 }, 45],
])('the pace can be changed while it runs: %s', (_, pace, expected) => {
  const drain = drainOf(1_100, { noticeMs: 0 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 20 } })
  drain.pass(9_000)
  expect(drain.begun([1_000, 6_000])).toBe(100)
  drain.handle({ type: 'start', pace })
  drain.pass(4_000)
  // Those told already keep their slots.
  expect(drain.begun([9_000, 10_000])).toBeGreaterThan(15)
  expect(drain.begun([10_500, 13_500]) / 3).toBeGreaterThan(expected * 0.9 - 1)
  expect(drain.begun([10_500, 13_500]) / 3).toBeLessThan(expected * 1.1 + 1)
})

test('a start without a pace changes nothing of the drain that runs', () => {
  const drain = drainOf(1_000, { noticeMs: 0 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 20 } })
  drain.pass(2_000)
  drain.handle({ type: 'start' })
  drain.pass(2_000)
  expect(drain.machine.ratePerSecond).toBe(20)
})

test('one that comes while the balancer has not noticed is asked as the others are', () => {
  const drain = drainOf(10)
  drain.handle({ type: 'start', pace: { ratePerSecond: 10 } })
  drain.pass(3_000)
  drain.come(10)
  drain.pass(2_100)
  drain.come(1)
  drain.pass(5_000)
  expect(drain.slots).toHaveLength(21)
  expect(drain.machine.state).toBe('gone')
})

test('who stays is cut when grace and closing are over', () => {
  const drain = drainOf(10, { noticeMs: 0, staysMs: 60_000 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 10 } })
  drain.pass(1_500)
  expect(drain.machine.state).toBe('forcing')
  drain.pass(7_000)
  expect(drain.machine.state).toBe('forcing')
  drain.effects()
  drain.pass(1_000)
  expect(drain.machine.state).toBe('gone')
  expect(drain.effects()).toEqual([{ type: 'cut' }])
})

test.each(['not_ready', 'evicting', 'forcing'] as const)('it can be taken back while %s, and begun again', (state) => {
  const drain = drainOf(20, { staysMs: 60_000 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 10 } })
  drain.pass(state === 'not_ready' ? 1_000 : state === 'evicting' ? 5_500 : 7_500)
  expect(drain.machine.state).toBe(state)
  drain.effects()
  drain.handle({ type: 'abort' })
  expect(drain.machine.state).toBe('serving')
  expect(drain.effects()).toEqual([
    { type: 'take devices', taken: true },
    { type: 'report', draining: false },
    ...(state === 'not_ready' ? [] : [{ type: 'keep' }]),
  ])
  const told = drain.slots.length
  drain.pass(60_000)
  expect(drain.slots).toHaveLength(told)
  expect(drain.present()).toBe(20)
  drain.handle({ type: 'start', pace: { ratePerSecond: 5 } })
  drain.pass(6_000)
  expect(drain.machine.ratePerSecond).toBe(5)
  drain.pass(20_000)
  expect(drain.machine.state).toBe('gone')
})

test('a process that stops hastens the drain that runs, and it cannot be taken back any more', () => {
  const drain = drainOf(1_000, { noticeMs: 0 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 1 } })
  drain.pass(2_000)
  drain.handle({ type: 'stop', overMs: 10_000 })
  drain.handle({ type: 'abort' })
  drain.handle({ type: 'start', pace: { ratePerSecond: 1 } })
  drain.pass(10_000)
  expect(drain.slots).toHaveLength(1_000)
  drain.pass(1_500)
  expect(drain.machine.state).toBe('gone')
})

test('a drain that is faster than the stop asks for stays so', () => {
  const drain = drainOf(1_000, { noticeMs: 0 })
  drain.handle({ type: 'start', pace: { ratePerSecond: 500 } })
  drain.pass(100)
  drain.handle({ type: 'stop', overMs: 10_000 })
  drain.pass(2_500)
  expect(drain.machine.state).toBe('gone')
})

test('no time to spread over: all are asked at once', () => {
  const drain = drainOf(500, { noticeMs: 0 })
  drain.handle({ type: 'stop', overMs: 0 })
  drain.pass(100)
  expect(drain.slots).toHaveLength(500)
  expect(Math.max(...drain.slots)).toBeLessThan(200)
})

test('an edge that nobody is on is gone once the balancer has noticed; after that nothing begins', () => {
  const drain = drainOf(0)
  drain.handle({ type: 'start' })
  drain.pass(4_900)
  expect(drain.machine.state).toBe('not_ready')
  drain.pass(100)
  expect(drain.machine.state).toBe('gone')
  drain.effects()
  drain.handle({ type: 'abort' })
  drain.handle({ type: 'start' })
  drain.handle({ type: 'stop', overMs: 1_000 })
  drain.pass(1_000)
  expect(drain.effects()).toEqual([])
  expect(drain.machine.state).toBe('gone')
})
