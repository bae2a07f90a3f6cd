import { describe, expect, test } from 'vitest'
import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, MessageOutcome, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { receipt } from '../testing/receipt-registry.ts'
import { deviceCountOf, deviceOutcomes, expireTimeOf } from './message-state.ts'

const second = 1_000_000
const expiry = 100 * second
const stateNames = new Map<number, string>(Object.entries(MessageState).map(([name, number]) => [number, name]))

interface Row {
  readonly state: keyof typeof MessageState
  readonly at: number
  readonly reason?: keyof typeof StateReason
  readonly confirm?: keyof typeof ConfirmLevel
  readonly resultDue?: number
}

const row = ({ state, at, reason = 'UNSPECIFIED', confirm = 'ACKNOWLEDGED', resultDue = 0 }: Row): Receipt => {
  const made = receipt('m', { state: MessageState[state], time: at * second })
  return {
    ...made,
    outcome: MessageOutcome.fromPartial({ state: MessageState[state], reason: StateReason[reason] }),
    expireTime: expiry,
    confirm: ConfirmLevel[confirm],
    resultDeadline: resultDue * second,
  }
}

const read = (rows: readonly Receipt[], at: number): string => {
  const [outcome] = deviceOutcomes(rows, at * second)
  const reason = Object.entries(StateReason).find(([, value]) => value === outcome?.outcome?.reason)?.[0]
  const words = [
    stateNames.get(outcome?.outcome?.state ?? -1),
    reason === 'UNSPECIFIED' ? '' : reason,
    outcome?.final ? 'final' : 'open',
  ]
  return `${words.filter(Boolean).join(' ')} since ${outcome?.time?.seconds}`
}

/** Reads the rows in every order: the registry gives them in none. */
function readAnyOrder(rows: readonly Row[], at: number): string {
  const receipts = rows.map(row)
  const forwards = read(receipts, at)
  expect(read(receipts.toReversed(), at)).toBe(forwards)
  return forwards
}

describe('the highest rank counts', () => {
  const ladder: [lower: Row, higher: Row][] = [
    [
      { state: 'ACCEPTED', at: 9 },
      { state: 'STORED', at: 1 },
    ],
    [
      { state: 'ACCEPTED', at: 9 },
      { state: 'WRITTEN', at: 1 },
    ],
    [
      { state: 'STORED', at: 9 },
      { state: 'EXPIRED', at: 1 },
    ],
    [
      { state: 'WRITTEN', at: 9 },
      { state: 'EXPIRED', at: 1 },
    ],
    [
      { state: 'EXPIRED', at: 9 },
      { state: 'CANCELLED', at: 1 },
    ],
    [
      { state: 'EXPIRED', at: 9 },
      { state: 'REPLACED', at: 1 },
    ],
    [
      { state: 'EXPIRED', at: 9 },
      { state: 'DROPPED', at: 1 },
    ],
    [
      { state: 'EXPIRED', at: 9 },
      { state: 'DEAD_LETTERED', at: 1 },
    ],
    [
      { state: 'CANCELLED', at: 9 },
      { state: 'ACKNOWLEDGED', at: 1 },
    ],
    [
      { state: 'DEAD_LETTERED', at: 9 },
      { state: 'ACKNOWLEDGED', at: 1 },
    ],
    [
      { state: 'ACKNOWLEDGED', at: 9 },
      { state: 'COMPLETED', at: 1 },
    ],
    [
      { state: 'COMPLETED', at: 9 },
      { state: 'FAILED', at: 1 },
    ],
  ]
  test.each(ladder)('%o < %o, whenever they were recorded', (lower, higher) => {
    expect(readAnyOrder([lower, higher], 10)).toMatch(new RegExp(`^${higher.state} .*since 1$`))
  })
})

describe('of those that rank alike the newest counts', () => {
  test.each<[keyof typeof MessageState, keyof typeof MessageState]>([
    ['STORED', 'WRITTEN'],
    ['WRITTEN', 'STORED'],
    ['CANCELLED', 'DROPPED'],
    ['DROPPED', 'CANCELLED'],
    ['REPLACED', 'DEAD_LETTERED'],
    ['DEAD_LETTERED', 'REPLACED'],
    ['CANCELLED', 'REPLACED'],
    ['DROPPED', 'DROPPED'],
  ])('%s, then %s', (older, newer) => {
    expect(
      readAnyOrder(
        [
          { state: older, at: 1 },
          { state: newer, at: 2 },
        ],
        10,
      ),
    ).toMatch(new RegExp(`^${newer} .*since 2$`))
  })
  test('at the same moment every reader sees the same', () => {
    expect(
      readAnyOrder(
        [
          { state: 'STORED', at: 1 },
          { state: 'WRITTEN', at: 1 },
        ],
        10,
      ),
    ).toBe('WRITTEN open since 1')
  })
})

describe('final', () => {
  test.each<[string, Row, string]>([
    [
      'WRITTEN where it was wanted, or the edge says so',
      { state: 'WRITTEN', at: 1, confirm: 'WRITTEN' },
      'WRITTEN final since 1',
    ],
    ['not WRITTEN where an answer was wanted', { state: 'WRITTEN', at: 1 }, 'WRITTEN open since 1'],
    ['not STORED', { state: 'STORED', at: 1, reason: 'OFFLINE' }, 'STORED OFFLINE open since 1'],
    ['ACKNOWLEDGED', { state: 'ACKNOWLEDGED', at: 1 }, 'ACKNOWLEDGED final since 1'],
    [
      'not ACKNOWLEDGED where a result was wanted',
      { state: 'ACKNOWLEDGED', at: 1, confirm: 'RESULT', resultDue: 50 },
      'ACKNOWLEDGED open since 1',
    ],
    ['FAILED, with its reason', { state: 'FAILED', at: 1, reason: 'NACKED' }, 'FAILED NACKED final since 1'],
    ['DROPPED, with its reason', { state: 'DROPPED', at: 1, reason: 'UNKNOWN' }, 'DROPPED UNKNOWN final since 1'],
  ])('%s', (_what, one, told) => {
    expect(readAnyOrder([one], 10)).toBe(told)
  })
})

describe('time makes of what is recorded', () => {
  test.each<[string, Row[], number, string]>([
    ['STORED, a moment before its expire time: itself', [{ state: 'STORED', at: 1 }], 99.999, 'STORED open since 1'],
    [
      'STORED, at its expire time: EXPIRED, and why it waited',
      [{ state: 'STORED', at: 1, reason: 'OFFLINE' }],
      100,
      'EXPIRED OFFLINE final since 100',
    ],
    ['ACCEPTED, past it: EXPIRED', [{ state: 'ACCEPTED', at: 1 }], 200, 'EXPIRED final since 100'],
    ['WRITTEN without an answer, past it: EXPIRED', [{ state: 'WRITTEN', at: 1 }], 200, 'EXPIRED final since 100'],
    [
      'WRITTEN that a call gave up waiting for, past it: EXPIRED for want of an answer',
      [{ state: 'WRITTEN', at: 1, reason: 'WAIT_ENDED' }],
      200,
      'EXPIRED ACK_TIMEOUT final since 100',
    ],
    ['WRITTEN that is final, past it: itself', [{ state: 'WRITTEN', at: 1, confirm: 'WRITTEN' }], 200, 'WRITTEN final since 1'],
    [
      'WRITTEN that is final, and EXPIRED recorded: WRITTEN',
      [
        { state: 'WRITTEN', at: 1, confirm: 'WRITTEN' },
        { state: 'EXPIRED', at: 100, confirm: 'WRITTEN' },
      ],
      200,
      'WRITTEN final since 1',
    ],
    [
      'WRITTEN that is final, and STORED later: WRITTEN',
      [
        { state: 'WRITTEN', at: 1, confirm: 'WRITTEN' },
        { state: 'STORED', at: 2, confirm: 'WRITTEN' },
      ],
      200,
      'WRITTEN final since 1',
    ],
    [
      'a device that answered, past it: its answer',
      [
        { state: 'EXPIRED', at: 100 },
        { state: 'ACKNOWLEDGED', at: 101 },
      ],
      200,
      'ACKNOWLEDGED final since 101',
    ],
    [
      'CANCELLED, past it: itself',
      [
        { state: 'STORED', at: 1 },
        { state: 'CANCELLED', at: 2 },
      ],
      200,
      'CANCELLED final since 2',
    ],
    [
      'RESULT acknowledged, past the expire time and before the result is due: itself',
      [{ state: 'ACKNOWLEDGED', at: 1, confirm: 'RESULT', resultDue: 300 }],
      299.999,
      'ACKNOWLEDGED open since 1',
    ],
    [
      'RESULT acknowledged, when the result is due: FAILED',
      [{ state: 'ACKNOWLEDGED', at: 1, confirm: 'RESULT', resultDue: 300 }],
      300,
      'FAILED RESULT_TIMEOUT final since 300',
    ],
    [
      'RESULT that came late: the result',
      [
        { state: 'ACKNOWLEDGED', at: 1, confirm: 'RESULT', resultDue: 300 },
        { state: 'COMPLETED', at: 400, confirm: 'RESULT', resultDue: 300 },
      ],
      500,
      'COMPLETED final since 400',
    ],
    [
      'RESULT stored and never acknowledged: EXPIRED, not a missing result',
      [{ state: 'STORED', at: 1, confirm: 'RESULT', resultDue: 150 }],
      200,
      'EXPIRED final since 100',
    ],
  ])('%s', (_what, rows, at, told) => {
    expect(readAnyOrder(rows, at)).toBe(told)
  })
})

test('each device of a message has its own outcome', () => {
  const rows = [
    { ...row({ state: 'STORED', at: 1 }), deviceId: 'b' },
    { ...row({ state: 'ACKNOWLEDGED', at: 2 }), deviceId: 'c' },
    { ...row({ state: 'STORED', at: 1 }), deviceId: 'c' },
    { ...row({ state: 'DROPPED', at: 1 }), deviceId: 'a' },
  ]
  expect(
    deviceOutcomes(rows, 10 * second).map(({ deviceId, outcome }) => [deviceId, stateNames.get(outcome?.state ?? -1)]),
  ).toEqual([
    ['a', 'DROPPED'],
    ['b', 'STORED'],
    ['c', 'ACKNOWLEDGED'],
  ])
})

test('hops that the answer does not know come from the receipts before it; its own stand', () => {
  const time = timestampFromMicros
  const stored = row({ state: 'STORED', at: 1 })
  stored.outcome = MessageOutcome.fromPartial({
    state: MessageState.STORED,
    hops: { accepted: time(1), lookedUp: time(2), written: time(3) },
  })
  const answered = row({ state: 'ACKNOWLEDGED', at: 9 })
  answered.outcome = MessageOutcome.fromPartial({
    state: MessageState.ACKNOWLEDGED,
    hops: { written: time(8), answered: time(9) },
  })
  expect(deviceOutcomes([stored, answered], 10 * second)[0]?.outcome?.hops).toEqual({
    accepted: time(1),
    consumed: undefined,
    lookedUp: time(2),
    sentToEdge: undefined,
    written: time(8),
    answered: time(9),
  })
})

test('result, words and everything recorded in order of time come with it', () => {
  const completed = { ...row({ state: 'COMPLETED', at: 3, confirm: 'RESULT' }), result: Buffer.from('data') }
  completed.outcome = MessageOutcome.fromPartial({ state: MessageState.COMPLETED, detail: 'well', edgeId: 'e', sessionId: 's' })
  const rows = [completed, row({ state: 'STORED', at: 1, reason: 'OFFLINE' }), row({ state: 'ACKNOWLEDGED', at: 2 })]
  expect(deviceOutcomes(rows, 10 * second)[0]).toMatchObject({
    outcome: { detail: 'well', edgeId: 'e', sessionId: 's' },
    result: Buffer.from('data'),
    recorded: [
      { state: MessageState.STORED, reason: StateReason.OFFLINE, time: { seconds: 1, nanos: 0 } },
      { state: MessageState.ACKNOWLEDGED, time: { seconds: 2, nanos: 0 } },
      { state: MessageState.COMPLETED, time: { seconds: 3, nanos: 0 } },
    ],
  })
})

test('a message of which nothing is recorded is nowhere, and has no expire time', () => {
  expect(deviceOutcomes([], 1)).toEqual([])
  expect(expireTimeOf([])).toBe(0)
  expect(expireTimeOf([row({ state: 'STORED', at: 1 })])).toBe(expiry)
})

describe('of an account', () => {
  const whole = (state: MessageState, deviceCount: number): Receipt =>
    receipt('m', { deviceId: '', state, more: { deviceCount } })

  test('the row of the whole tells how many devices there are, and is none of them', () => {
    const rows = [whole(MessageState.ACCEPTED, 2), receipt('m', { deviceId: 'a', state: MessageState.STORED })]
    expect(deviceOutcomes(rows, 5).map(({ deviceId }) => deviceId)).toEqual(['a'])
    expect(deviceCountOf(rows)).toBe(2)
    expect(deviceOutcomes([whole(MessageState.ACCEPTED, 2)], 5)).toEqual([])
  })

  test('without devices it has one final outcome, of no device', () => {
    const rows = [whole(MessageState.DROPPED, 0)]
    expect(deviceOutcomes(rows, 5)).toMatchObject([{ deviceId: '', final: true, outcome: { state: MessageState.DROPPED } }])
    expect(deviceCountOf(rows)).toBe(0)
  })

  test('a repeat that found devices where the first time found none: the devices count', () => {
    const rows = [
      whole(MessageState.DROPPED, 0),
      whole(MessageState.ACCEPTED, 1),
      receipt('m', { deviceId: 'a', state: MessageState.ACKNOWLEDGED }),
    ]
    expect(deviceOutcomes(rows, 5).map(({ deviceId }) => deviceId)).toEqual(['a'])
    expect(deviceCountOf(rows)).toBe(1)
  })
})
