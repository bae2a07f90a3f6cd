import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, type HopTimes, MessageOutcome, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import type { DeviceOutcome } from '../../gen/push/v1/publish.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { isFinal } from '../dispatch/receipt-policy.ts'

/**
 * What a message is at each device now, by device id: from its receipts in any order, and the time in µs since the epoch. At each device the
 * highest-ranking receipt counts, of those that rank alike the newest. Time then makes EXPIRED of what is not final, and FAILED of an
 * acknowledgement whose result is overdue. An account without devices is told as one without id, as long as none has got the message all the same.
 */
export function deviceOutcomes(receipts: readonly Receipt[], nowMicros: number): DeviceOutcome[] {
  const byDevice = new Map<string, Receipt[]>()
  const hasDevices = receipts.some(({ deviceId, deviceCount }) => deviceId !== '' || deviceCount > 0)
  for (const receipt of receipts) {
    if (receipt.deviceId === '' && hasDevices) continue
    const of = byDevice.get(receipt.deviceId)
    if (of) of.push(receipt)
    else byDevice.set(receipt.deviceId, [receipt])
  }
  return [...byDevice]
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([deviceId, rows]) => deviceOutcome(deviceId, rows, nowMicros))
}

/** For how many devices a message to an account is; 0 for others, and where that is not known. */
export function deviceCountOf(receipts: readonly Receipt[]): number {
  return receipts.reduce((most, { deviceCount }) => Math.max(most, deviceCount), 0)
}

/** When the message expires, in µs since the epoch; 0 when nothing is recorded. */
export function expireTimeOf(receipts: readonly Receipt[]): number {
  return receipts.reduce((latest, { expireTime }) => Math.max(latest, expireTime), 0)
}

function deviceOutcome(deviceId: string, rows: readonly Receipt[], nowMicros: number): DeviceOutcome {
  const byRank = rows.toSorted(
    (one, other) => rankOf(other) - rankOf(one) || other.time - one.time || stateOf(other) - stateOf(one),
  )
  const [newest] = byRank
  if (!newest) throw new Error('a device without receipts has no outcome')
  const { state, reason, time, final } = readAt(newest, nowMicros)
  return {
    deviceId,
    outcome: {
      ...(newest.outcome ?? MessageOutcome.fromPartial({})),
      state,
      reason,
      hops: mergedHops(byRank),
    },
    time: timestampFromMicros(time),
    final,
    result: newest.result,
    recorded: rows
      .toSorted((one, other) => one.time - other.time || rankOf(one) - rankOf(other))
      .map((row) => ({
        state: stateOf(row),
        reason: row.outcome?.reason ?? StateReason.UNSPECIFIED,
        time: timestampFromMicros(row.time),
      })),
  }
}

/** What time makes of the receipt that counts. */
function readAt(receipt: Receipt, nowMicros: number) {
  const state = stateOf(receipt)
  const reason = receipt.outcome?.reason ?? StateReason.UNSPECIFIED
  const asRecorded = { state, reason, time: receipt.time, final: isFinalReceipt(receipt) }
  if (asRecorded.final) return asRecorded
  if (state === MessageState.ACKNOWLEDGED) {
    const overdue = receipt.resultDeadline > 0 && receipt.resultDeadline <= nowMicros
    if (!overdue) return asRecorded
    return { state: MessageState.FAILED, reason: StateReason.RESULT_TIMEOUT, time: receipt.resultDeadline, final: true }
  }
  if (receipt.expireTime > nowMicros) return asRecorded
  return { state: MessageState.EXPIRED, reason: expiryReason(state, reason), time: receipt.expireTime, final: true }
}

/** Why it had not been delivered when it expired. A call that gave up waiting is no reason for that. */
function expiryReason(state: MessageState, reason: StateReason): StateReason {
  if (reason !== StateReason.WAIT_ENDED) return reason
  return state === MessageState.WRITTEN ? StateReason.ACK_TIMEOUT : StateReason.UNSPECIFIED
}

function rankOf(receipt: Receipt): number {
  const state = stateOf(receipt)
  switch (state) {
    case MessageState.STORED:
      return MessageState.WRITTEN
    case MessageState.WRITTEN:
      // A written message that needs no answer has got there, whatever else was recorded meanwhile.
      return isFinalReceipt(receipt) ? MessageState.EXPIRED + 0.5 : MessageState.WRITTEN
    case MessageState.CANCELLED:
    case MessageState.REPLACED:
    case MessageState.DROPPED:
    case MessageState.DEAD_LETTERED:
      return MessageState.DEAD_LETTERED
    default:
      return state
  }
}

/** An edge that calls WRITTEN final has it recorded with `confirm` WRITTEN. */
function isFinalReceipt(receipt: Receipt): boolean {
  return isFinal(stateOf(receipt), receipt.confirm || ConfirmLevel.ACKNOWLEDGED, false)
}

function stateOf({ outcome }: Receipt): MessageState {
  return outcome?.state ?? MessageState.UNSPECIFIED
}

/** The hops of the receipt that counts, completed from the others: a late answer is recorded by a router that has not seen the way there. */
function mergedHops(byRank: readonly Receipt[]): HopTimes {
  const hops: HopTimes = {
    accepted: undefined,
    consumed: undefined,
    lookedUp: undefined,
    sentToEdge: undefined,
    written: undefined,
    answered: undefined,
  }
  for (const { outcome } of byRank) {
    hops.accepted ??= outcome?.hops?.accepted
    hops.consumed ??= outcome?.hops?.consumed
    hops.lookedUp ??= outcome?.hops?.lookedUp
    hops.sentToEdge ??= outcome?.hops?.sentToEdge
    hops.written ??= outcome?.hops?.written
    hops.answered ??= outcome?.hops?.answered
  }
  return hops
}
