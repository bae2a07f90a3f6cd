import { expect, test } from 'vitest'
import { MessageState, StateReason } from '../gen/push/v1/message.ts'
import { exitCodeOfDevices, tellOutcome } from './outcomes.ts'
import { deviceAt } from './testing/device-outcome.ts'

const told = (state: keyof typeof MessageState, reason: keyof typeof StateReason = 'UNSPECIFIED', detail = '') => {
  const outcome = { state: MessageState[state], reason: StateReason[reason], detail, edgeId: '', sessionId: '', hops: undefined }
  const response = { messageId: 'id-1', acceptTime: undefined, expireTime: undefined, state: outcome.state, outcome }
  const { exitCode, words } = tellOutcome(response, 'demo', 4.4)
  return `${exitCode} ${words}`
}

test.each<[Parameters<typeof told>, string]>([
  [['ACCEPTED'], '0 accepted id-1'],
  [['ACKNOWLEDGED'], '0 acknowledged by demo in 4 ms (message id-1)'],
  [['COMPLETED'], '0 completed by demo in 4 ms (message id-1)'],
  [['WRITTEN'], '0 written to demo in 4 ms (message id-1)'],
  [['FAILED', 'NACKED', 'no disk\u001b'], '1 refused by demo: no disk\\u001b (message id-1)'],
  [['FAILED', 'RESULT_TIMEOUT'], '1 failed on demo (RESULT_TIMEOUT) (message id-1)'],
  [['DROPPED', 'OFFLINE'], '4 offline: dropped (message id-1)'],
  [['STORED'], '4 offline: stored (message id-1)'],
  [['STORED', 'OFFLINE'], '4 offline: stored (message id-1)'],
  [['STORED', 'ACK_TIMEOUT'], '4 written, but not acknowledged in time: stored (message id-1)'],
  [['STORED', 'UNREACHABLE'], '4 unreachable: stored (message id-1)'],
  [['DROPPED', 'UNREACHABLE'], '5 unreachable: dropped (message id-1)'],
  [['DROPPED', 'ACK_TIMEOUT'], '5 written, but not acknowledged in time: dropped (message id-1)'],
  [['DROPPED', 'SLOW_CONSUMER'], '5 the device reads too slowly: dropped (message id-1)'],
  [['DROPPED', 'UNKNOWN'], '5 may or may not have reached the device: dropped (message id-1)'],
  [['DROPPED', 'INBOX_FULL'], "5 the device's inbox is full: dropped (message id-1)"],
  [['DROPPED'], '5 not delivered: dropped (message id-1)'],
  [['EXPIRED'], '5 expired (message id-1)'],
  [['REPLACED'], '5 replaced (message id-1)'],
  [['CANCELLED'], '5 cancelled (message id-1)'],
  [['DEAD_LETTERED', 'TOO_LARGE', '70000 bytes'], '5 dead lettered (TOO_LARGE): 70000 bytes (message id-1)'],
  [['WRITTEN', 'WAIT_ENDED'], '6 gave up waiting: written to demo, not acknowledged yet (message id-1)'],
  [['ACCEPTED', 'WAIT_ENDED'], '6 gave up waiting: not delivered yet (message id-1)'],
])('%j', (outcome, line) => {
  expect(told(...outcome)).toBe(line)
})

test('every state that a service may answer has an exit code and words', () => {
  for (const name of Object.keys(MessageState) as (keyof typeof MessageState)[]) {
    expect(told(name)).toMatch(/^\d .*id-1\)?$/)
  }
})

test('without a time the words tell none', () => {
  expect(tellOutcome({ messageId: 'id-1', state: MessageState.ACKNOWLEDGED }, 'demo').words).toBe(
    'acknowledged by demo (message id-1)',
  )
})

test.each<[number, Parameters<typeof deviceAt>[]]>([
  [0, [['ACKNOWLEDGED', { final: true }]]],
  [
    0,
    [
      ['WRITTEN', { final: true }],
      ['COMPLETED', { final: true }],
    ],
  ],
  [1, [['FAILED', { final: true }]]],
  [4, [['STORED']]],
  [4, [['DROPPED', { final: true, reason: 'OFFLINE' }]]],
  [
    5,
    [
      ['EXPIRED', { final: true }],
      ['CANCELLED', { final: true }],
    ],
  ],
  [6, [['WRITTEN']]],
  [6, [['ACKNOWLEDGED']]],
  [6, []],
  [7, [['ACKNOWLEDGED', { final: true }], ['STORED']]],
  [
    7,
    [
      ['ACKNOWLEDGED', { final: true }],
      ['FAILED', { final: true }],
    ],
  ],
])('%i for %j', (code, devices) => {
  expect(exitCodeOfDevices(devices.map((device) => deviceAt(...device)))).toBe(code)
})
