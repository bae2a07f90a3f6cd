import { expect, test } from 'vitest'
import { EvictionPace } from './eviction-pace.ts'

test('slots lie one interval apart, however often they are asked for', () => {
  const pace = new EvictionPace(10, 1_000)
  expect(pace.take(1_000, 250, 99)).toEqual([100, 200])
  expect(pace.take(1_010, 250, 99)).toEqual([])
  expect(pace.take(1_250, 250, 99)).toEqual([50, 150, 250])
})

test('no more than asked for, and the rest stays for the next time', () => {
  const pace = new EvictionPace(10, 0)
  expect(pace.take(0, 1_000, 2)).toEqual([100, 200])
  expect(pace.take(0, 400, 99)).toEqual([300, 400])
})

test('what a stall has missed is not caught up in one burst', () => {
  const pace = new EvictionPace(10, 0)
  pace.take(0, 0, 99)
  expect(pace.take(60_000, 250, 99)).toEqual([0, 100, 200])
})

test('another rate holds from the last slot given on', () => {
  const pace = new EvictionPace(1, 0)
  expect(pace.take(0, 1_000, 99)).toEqual([1_000])
  pace.change(4, 500)
  expect(pace.ratePerSecond).toBe(4)
  expect(pace.take(500, 1_000, 99)).toEqual([750, 1_000])
})

test('a faster rate does not wait for the slot that a slow one would have given', () => {
  const pace = new EvictionPace(0.1, 0)
  pace.change(10, 5_000)
  expect(pace.take(5_000, 100, 99)).toEqual([0, 100])
})
