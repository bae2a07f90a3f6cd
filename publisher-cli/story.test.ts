import { expect, test } from 'vitest'
import { storyLines } from './story.ts'
import { deviceAt } from './testing/device-outcome.ts'

test('a delivered message: each hop with the time since the one before', () => {
  const device = deviceAt('ACKNOWLEDGED', {
    final: true,
    at: 31,
    hops: { accepted: 0, consumed: 4.25, lookedUp: 5.5, sentToEdge: 5.75, written: 7, answered: 30 },
    recorded: [['ACKNOWLEDGED', 31]],
  })
  expect(storyLines(device)).toEqual([
    'TIME                      MS     STEP',
    '2026-01-01T00:00:00.000Z         accepted',
    '2026-01-01T00:00:00.004Z  +4.3   consumed from the queue',
    '2026-01-01T00:00:00.005Z  +1.3   looked up',
    '2026-01-01T00:00:00.005Z  +0.3   sent to edge edge-1',
    '2026-01-01T00:00:00.007Z  +1.3   written to the device (session s-1)',
    '2026-01-01T00:00:00.030Z  +23.0  answered by the device',
    '2026-01-01T00:00:00.031Z  +1.0   acknowledged',
  ])
})

test('a stored message that was delivered later: stored stands between', () => {
  const device = deviceAt('ACKNOWLEDGED', {
    final: true,
    at: 5_003,
    hops: { accepted: 0, lookedUp: 1, written: 5_000, answered: 5_002 },
    recorded: [
      ['STORED', 2, 'OFFLINE'],
      ['ACKNOWLEDGED', 5_003],
    ],
  })
  expect(
    storyLines(device)
      .slice(1)
      .map((line) => line.slice(26)),
  ).toEqual([
    '         accepted',
    '+1.0     looked up',
    '+1.0     stored (OFFLINE)',
    '+4998.0  written to the device (session s-1)',
    '+2.0     answered by the device',
    '+1.0     acknowledged',
  ])
})

test('a state that nobody recorded, but time has made, is told too', () => {
  const device = deviceAt('EXPIRED', {
    final: true,
    reason: 'OFFLINE',
    at: 60_000,
    hops: { accepted: 0 },
    recorded: [['STORED', 2, 'OFFLINE']],
  })
  expect(storyLines(device).at(-1)).toBe('2026-01-01T00:01:00.000Z  +59998.0  expired (OFFLINE)')
})

test('a part whose clock is behind shows a step of less than nothing, in the order of the clocks', () => {
  const device = deviceAt('WRITTEN', { final: true, at: 3, hops: { accepted: 2, written: 1 }, recorded: [['WRITTEN', 3]] })
  expect(
    storyLines(device)
      .slice(1)
      .map((line) => line.slice(26)),
  ).toEqual(['      written to the device (session s-1)', '+1.0  accepted'])
})

test('ids that would steer the terminal do not', () => {
  const device = deviceAt('STORED', { at: 2, hops: { sentToEdge: 1 } })
  if (device.outcome) device.outcome.edgeId = 'e\u001b[2J'
  expect(storyLines(device)[1]).toContain('sent to edge e\\u001b[2J')
})
