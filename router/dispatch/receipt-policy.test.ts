import { describe, expect, test } from 'vitest'
import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, MessageOutcome, MessageState, ReceiptMode } from '../../gen/push/v1/message.ts'
import { isFinal, receiptOf, wantsReceipt } from './receipt-policy.ts'

const { WRITTEN, ACKNOWLEDGED, RESULT } = ConfirmLevel
const allStates = Object.entries(MessageState).filter(([name]) => name !== 'UNSPECIFIED')
const namesOf = (holds: (state: MessageState) => boolean) => allStates.filter(([, state]) => holds(state)).map(([name]) => name)

const always = ['EXPIRED', 'CANCELLED', 'REPLACED', 'DROPPED', 'DEAD_LETTERED']

test.each([
  ['WRITTEN was wanted', WRITTEN, false, ['WRITTEN', ...always, 'ACKNOWLEDGED', 'COMPLETED', 'FAILED']],
  ['ACKNOWLEDGED was wanted', ACKNOWLEDGED, false, [...always, 'ACKNOWLEDGED', 'COMPLETED', 'FAILED']],
  ['RESULT was wanted', RESULT, false, [...always, 'COMPLETED', 'FAILED']],
  ['the device cannot acknowledge', ACKNOWLEDGED, true, ['WRITTEN', ...always, 'ACKNOWLEDGED', 'COMPLETED', 'FAILED']],
  ['nothing was said', ConfirmLevel.UNSPECIFIED, false, [...always, 'ACKNOWLEDGED', 'COMPLETED', 'FAILED']],
])('final when %s', (_when, confirm, edgeFinal, states) => {
  expect(namesOf((state) => isFinal(state, confirm, edgeFinal))).toEqual(states)
})

describe('recorded', () => {
  const recorded = (
    mode: ReceiptMode,
    confirm: ConfirmLevel,
    how: { returnedByDirectCall?: boolean; edgeFinal?: boolean } = {},
  ) => namesOf((state) => wantsReceipt(mode, confirm, state, { returnedByDirectCall: false, ...how }))
  const byDefault = ['STORED', ...always, 'ACKNOWLEDGED', 'COMPLETED', 'FAILED']

  test('FINAL: what is final, and STORED', () => {
    expect(recorded(ReceiptMode.FINAL, ACKNOWLEDGED)).toEqual(byDefault)
    expect(recorded(ReceiptMode.UNSPECIFIED, ACKNOWLEDGED)).toEqual(byDefault)
  })
  test('FINAL: WRITTEN where it was wanted, or is final at the edge', () => {
    expect(recorded(ReceiptMode.FINAL, WRITTEN)).toContain('WRITTEN')
    expect(recorded(ReceiptMode.FINAL, ACKNOWLEDGED, { edgeFinal: true })).toContain('WRITTEN')
  })
  test('FINAL: ACKNOWLEDGED also while a result is to come', () => {
    expect(recorded(ReceiptMode.FINAL, RESULT)).toEqual(byDefault)
  })
  test('FINAL: whatever a direct call returned', () => {
    expect(recorded(ReceiptMode.FINAL, ACKNOWLEDGED, { returnedByDirectCall: true })).toHaveLength(allStates.length)
  })
  test('ALL: every state', () => {
    expect(recorded(ReceiptMode.ALL, ACKNOWLEDGED)).toHaveLength(allStates.length)
  })
  test('NONE: nothing, not even what a direct call returned', () => {
    expect(recorded(ReceiptMode.NONE, WRITTEN, { returnedByDirectCall: true, edgeFinal: true })).toEqual([])
  })
})

describe('a receipt', () => {
  const queued = QueuedMessage.fromPartial({
    messageId: 'm',
    message: { confirm: RESULT, resultTimeout: { seconds: 60, nanos: 0 } },
    acceptTime: 1,
    expireTime: 5_000_000,
    principal: 'p',
  })
  const at = (state: MessageState, more: object = {}, message = queued) =>
    receiptOf(message, { deviceId: 'd', outcome: MessageOutcome.fromPartial({ state }), time: 2_000_000, ...more })

  test('carries whose it is, when, and what was wanted', () => {
    expect(at(MessageState.COMPLETED, { result: Buffer.from('r') })).toMatchObject({
      messageId: 'm',
      deviceId: 'd',
      outcome: { state: MessageState.COMPLETED },
      time: 2_000_000,
      expireTime: 5_000_000,
      confirm: RESULT,
      result: Buffer.from('r'),
      principal: 'p',
    })
  })
  test('a result is due its time after the acknowledgement; before that, after the last moment for one', () => {
    expect(at(MessageState.ACKNOWLEDGED).resultDeadline).toBe(62_000_000)
    expect(at(MessageState.STORED).resultDeadline).toBe(65_000_000)
  })
  test('without a time named a result has 10 minutes; without a result wanted none is due', () => {
    const unnamed = QueuedMessage.fromPartial({ ...queued, message: { confirm: RESULT } })
    expect(at(MessageState.ACKNOWLEDGED, {}, unnamed).resultDeadline).toBe(602_000_000)
    const plain = QueuedMessage.fromPartial({ ...queued, message: { confirm: ACKNOWLEDGED } })
    expect(at(MessageState.ACKNOWLEDGED, {}, plain)).toMatchObject({ resultDeadline: 0, confirm: ACKNOWLEDGED })
  })
  test('WRITTEN that the edge calls final says so; other states keep what was wanted', () => {
    expect(at(MessageState.WRITTEN, { edgeFinal: true }).confirm).toBe(WRITTEN)
    expect(at(MessageState.WRITTEN).confirm).toBe(RESULT)
    expect(at(MessageState.EXPIRED, { edgeFinal: true }).confirm).toBe(RESULT)
  })
  test('long words are cut to what the contract takes', () => {
    const outcome = MessageOutcome.fromPartial({ state: MessageState.FAILED, detail: 'x'.repeat(2_000) })
    expect(at(MessageState.FAILED, { outcome }).outcome?.detail).toHaveLength(1_024)
  })
})
