import { describe, expect, test } from 'vitest'
import { FlushStop } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import {
  type DispatchEvent,
  type InboxStep,
  moveCountMax,
  type NextStep,
  nextInboxStep,
  nextStep,
  type Situation,
} from './outcomes.ts'

const queued: Situation = {
  origin: 'queue',
  sharedCall: false,
  confirm: ConfirmLevel.ACKNOWLEDGED,
  nowOrNever: false,
  maybeWritten: false,
  written: false,
  moveCount: 0,
  unregistered: false,
}
const nowOrNever: Situation = { ...queued, nowOrNever: true }
const direct: Situation = { ...queued, origin: 'direct' }
const written: Situation = { ...queued, maybeWritten: true, written: true }

const finish = (state: MessageState, reason: StateReason = StateReason.UNSPECIFIED): NextStep => ({
  step: 'finish',
  state,
  reason,
})
const drop = (reason: StateReason): NextStep => finish(MessageState.DROPPED, reason)
const store = (reason: StateReason): NextStep => ({ step: 'store', reason })

type Row = [line: string, event: DispatchEvent, situation: Situation, step: NextStep]

const table: Row[] = [
  ['written, answer wanted', { kind: 'WRITTEN', final: false }, queued, { step: 'await-answer' }],
  [
    'written, WRITTEN wanted',
    { kind: 'WRITTEN', final: false },
    { ...queued, confirm: ConfirmLevel.WRITTEN },
    finish(MessageState.WRITTEN),
  ],
  ['written to a device that cannot acknowledge', { kind: 'WRITTEN', final: true }, queued, finish(MessageState.WRITTEN)],
  ['acknowledged', { kind: 'ACKNOWLEDGED' }, written, finish(MessageState.ACKNOWLEDGED)],
  ['result ok', { kind: 'RESULT', ok: true }, written, finish(MessageState.COMPLETED)],
  ['result failed', { kind: 'RESULT', ok: false }, written, finish(MessageState.FAILED, StateReason.RESULT_FAILED)],
  ['nacked', { kind: 'NACKED' }, written, finish(MessageState.FAILED, StateReason.NACKED)],
  ['not connected, first time', { kind: 'NOT_CONNECTED' }, { ...queued, moveCount: 1 }, { step: 'look-up', wait: 'none' }],
  [
    'not connected, moves spent',
    { kind: 'NOT_CONNECTED' },
    { ...queued, moveCount: moveCountMax },
    store(StateReason.UNREACHABLE),
  ],
  [
    'not connected, moves spent, ttl 0',
    { kind: 'NOT_CONNECTED' },
    { ...nowOrNever, moveCount: moveCountMax },
    drop(StateReason.UNREACHABLE),
  ],
  ['another route found', { kind: 'ROUTE_FOUND', refused: false }, { ...queued, moveCount: 1 }, { step: 'deliver' }],
  ['the refusing route found again', { kind: 'ROUTE_FOUND', refused: true }, { ...queued, moveCount: 1 }, { step: 'unregister' }],
  [
    'the refusing route found again after its row was removed',
    { kind: 'ROUTE_FOUND', refused: true },
    { ...queued, moveCount: 1, unregistered: true },
    store(StateReason.UNREACHABLE),
  ],
  ['no usable row, but older ones', { kind: 'NO_ROUTE', more: true }, queued, { step: 'look-up', wait: 'none', allRows: true }],
  ['no usable row', { kind: 'NO_ROUTE', more: false }, queued, store(StateReason.OFFLINE)],
  ['no usable row, ttl 0', { kind: 'NO_ROUTE', more: false }, nowOrNever, drop(StateReason.OFFLINE)],
  ['closed after writing', { kind: 'CLOSED_UNACKNOWLEDGED' }, written, { step: 'look-up', wait: 'short' }],
  ['closed after writing, ttl 0', { kind: 'CLOSED_UNACKNOWLEDGED' }, { ...written, nowOrNever: true }, drop(StateReason.UNKNOWN)],
  ['slow consumer', { kind: 'SLOW_CONSUMER' }, queued, store(StateReason.SLOW_CONSUMER)],
  ['slow consumer, ttl 0', { kind: 'SLOW_CONSUMER' }, nowOrNever, drop(StateReason.SLOW_CONSUMER)],
  ['rate limited', { kind: 'RATE_LIMITED' }, queued, store(StateReason.RATE_LIMITED)],
  ['rate limited, ttl 0', { kind: 'RATE_LIMITED' }, nowOrNever, drop(StateReason.RATE_LIMITED)],
  ['link over its cap', { kind: 'LINK_FULL' }, queued, store(StateReason.UNREACHABLE)],
  ['link over its cap, direct', { kind: 'LINK_FULL' }, direct, { step: 'refuse', reason: 'RATE_EXCEEDED' }],
  ['another account is logged in', { kind: 'ACCOUNT_MISMATCH' }, queued, drop(StateReason.ACCOUNT_MISMATCH)],
  ['expired at the edge', { kind: 'EXPIRED' }, queued, finish(MessageState.EXPIRED)],
  ['expired here', { kind: 'DEADLINE_PASSED' }, queued, finish(MessageState.EXPIRED)],
  ['replaced', { kind: 'REPLACED' }, queued, finish(MessageState.REPLACED)],
  ['too large', { kind: 'TOO_LARGE' }, queued, { step: 'dead-letter', reason: StateReason.TOO_LARGE }],
  ['too large, direct', { kind: 'TOO_LARGE' }, direct, { step: 'refuse', reason: 'PAYLOAD_TOO_LARGE' }],
  ['unknown', { kind: 'UNKNOWN' }, { ...queued, maybeWritten: true }, { step: 'look-up', wait: 'back-off' }],
  ['unknown, ttl 0', { kind: 'UNKNOWN' }, { ...nowOrNever, maybeWritten: true }, drop(StateReason.UNKNOWN)],
  ['unreachable', { kind: 'UNREACHABLE' }, queued, { step: 'look-up', wait: 'back-off' }],
  ['unreachable, ttl 0, nothing sent yet', { kind: 'UNREACHABLE' }, nowOrNever, { step: 'look-up', wait: 'back-off' }],
  ['unreachable, ttl 0, sent before', { kind: 'UNREACHABLE' }, { ...nowOrNever, maybeWritten: true }, drop(StateReason.UNKNOWN)],
  ['edge gone', { kind: 'EDGE_GONE' }, queued, { step: 'look-up', wait: 'none' }],
  ['edge gone, ttl 0, sent before', { kind: 'EDGE_GONE' }, { ...nowOrNever, maybeWritten: true }, drop(StateReason.UNKNOWN)],
  ['no answer from the device in time', { kind: 'ACK_TIMEOUT' }, written, store(StateReason.ACK_TIMEOUT)],
  [
    'no answer from the device in time, ttl 0',
    { kind: 'ACK_TIMEOUT' },
    { ...written, nowOrNever: true },
    drop(StateReason.ACK_TIMEOUT),
  ],
  ['held long enough', { kind: 'HOLD_ENDED' }, queued, store(StateReason.UNREACHABLE)],
  [
    'held long enough, handed over and not heard of',
    { kind: 'HOLD_ENDED' },
    { ...queued, maybeWritten: true },
    store(StateReason.UNKNOWN),
  ],
  ['held long enough, written', { kind: 'HOLD_ENDED' }, written, store(StateReason.ACK_TIMEOUT)],
]

describe('the outcome table', () => {
  test.each(table)('%s', (_line, event, situation, step) => {
    expect(nextStep(event, situation)).toEqual(step)
  })

  test('a message published directly takes the same steps as a queued one, but where the publisher is told', () => {
    for (const [, event, situation, step] of table) {
      if (situation.origin !== 'queue' || event.kind === 'TOO_LARGE' || event.kind === 'LINK_FULL') continue
      expect(nextStep(event, { ...situation, origin: 'direct' })).toEqual(step)
    }
  })

  test('time to live 0 is never stored and never looked up again once it may have been written', () => {
    for (const [, event, situation] of table) {
      const step = nextStep(event, { ...situation, nowOrNever: true, maybeWritten: true })
      expect(step.step).not.toBe('store')
      if (
        event.kind === 'UNKNOWN' ||
        event.kind === 'UNREACHABLE' ||
        event.kind === 'EDGE_GONE' ||
        event.kind === 'CLOSED_UNACKNOWLEDGED'
      ) {
        expect(step.step).toBe('finish')
      }
    }
  })
})

describe('the column for messages from the inbox', () => {
  const acknowledged = ConfirmLevel.ACKNOWLEDGED
  const remove = (state: MessageState, reason: StateReason = StateReason.UNSPECIFIED): InboxStep => ({
    step: 'remove',
    state,
    reason,
  })
  const stop = (why: FlushStop): InboxStep => ({ step: 'stop', why })
  const rows: [line: string, event: DispatchEvent, confirm: ConfirmLevel, step: InboxStep][] = [
    ['written, answer wanted', { kind: 'WRITTEN', final: false }, acknowledged, { step: 'await-answer' }],
    ['written, WRITTEN wanted', { kind: 'WRITTEN', final: false }, ConfirmLevel.WRITTEN, remove(MessageState.WRITTEN)],
    ['written to a device that cannot acknowledge', { kind: 'WRITTEN', final: true }, acknowledged, remove(MessageState.WRITTEN)],
    ['acknowledged', { kind: 'ACKNOWLEDGED' }, acknowledged, remove(MessageState.ACKNOWLEDGED)],
    ['result ok', { kind: 'RESULT', ok: true }, ConfirmLevel.RESULT, remove(MessageState.COMPLETED)],
    ['result failed', { kind: 'RESULT', ok: false }, ConfirmLevel.RESULT, remove(MessageState.FAILED, StateReason.RESULT_FAILED)],
    ['nacked', { kind: 'NACKED' }, acknowledged, remove(MessageState.FAILED, StateReason.NACKED)],
    [
      'another account is logged in',
      { kind: 'ACCOUNT_MISMATCH' },
      acknowledged,
      remove(MessageState.DROPPED, StateReason.ACCOUNT_MISMATCH),
    ],
    ['expired at the edge', { kind: 'EXPIRED' }, acknowledged, remove(MessageState.EXPIRED)],
    ['expired here', { kind: 'DEADLINE_PASSED' }, acknowledged, remove(MessageState.EXPIRED)],
    ['replaced', { kind: 'REPLACED' }, acknowledged, remove(MessageState.REPLACED)],
    ['too large', { kind: 'TOO_LARGE' }, acknowledged, { step: 'dead-letter', reason: StateReason.TOO_LARGE }],
    ['no answer in time', { kind: 'ACK_TIMEOUT' }, acknowledged, { step: 'leave' }],
    ['not connected', { kind: 'NOT_CONNECTED' }, acknowledged, stop(FlushStop.NOT_CONNECTED)],
    ['closed after writing', { kind: 'CLOSED_UNACKNOWLEDGED' }, acknowledged, stop(FlushStop.NOT_CONNECTED)],
    ['edge gone', { kind: 'EDGE_GONE' }, acknowledged, stop(FlushStop.NOT_CONNECTED)],
    ['slow consumer', { kind: 'SLOW_CONSUMER' }, acknowledged, stop(FlushStop.SLOW_CONSUMER)],
    ['rate limited', { kind: 'RATE_LIMITED' }, acknowledged, stop(FlushStop.RATE_LIMITED)],
    ['link over its cap', { kind: 'LINK_FULL' }, acknowledged, stop(FlushStop.ROUTER)],
    ['unknown', { kind: 'UNKNOWN' }, acknowledged, stop(FlushStop.ROUTER)],
    ['unreachable', { kind: 'UNREACHABLE' }, acknowledged, stop(FlushStop.ROUTER)],
  ]
  test.each(rows)('%s', (_line, event, confirm, step) => {
    expect(nextInboxStep(event, confirm)).toEqual(step)
  })
})
