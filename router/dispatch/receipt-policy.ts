import { type QueuedMessage, Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, type MessageOutcome, MessageState, ReceiptMode } from '../../gen/push/v1/message.ts'
import { msFromDuration } from '../../service-kit/time.ts'

/** How a state came about, as far as receipts depend on it. */
export interface ReachedHow {
  /** It is what a direct call returned to its publisher. */
  readonly returnedByDirectCall: boolean
  /** The edge says that the device cannot acknowledge: WRITTEN is final. Default false. */
  readonly edgeFinal?: boolean
}

/**
 * Whether a state is recorded: with FINAL the final ones, STORED, ACKNOWLEDGED while a result is still to come, and what a direct call returned;
 * with ALL every one; with NONE nothing. Unset mode and level are read as the contract's defaults.
 */
export function wantsReceipt(mode: ReceiptMode, confirm: ConfirmLevel, state: MessageState, how: ReachedHow): boolean {
  if (mode === ReceiptMode.NONE) return false
  if (mode === ReceiptMode.ALL || how.returnedByDirectCall) return true
  // ACKNOWLEDGED is either final or has a result to come: it is recorded in both cases.
  return state === MessageState.STORED || state === MessageState.ACKNOWLEDGED || isFinal(state, confirm, how.edgeFinal === true)
}

/** Whether nothing follows this state. `edgeFinal`: the edge says that the device cannot acknowledge. */
export function isFinal(state: MessageState, confirm: ConfirmLevel, edgeFinal: boolean): boolean {
  switch (state) {
    case MessageState.UNSPECIFIED:
    case MessageState.ACCEPTED:
    case MessageState.STORED:
      return false
    case MessageState.WRITTEN:
      return edgeFinal || confirm === ConfirmLevel.WRITTEN
    case MessageState.ACKNOWLEDGED:
      return confirm !== ConfirmLevel.RESULT
    case MessageState.EXPIRED:
    case MessageState.CANCELLED:
    case MessageState.REPLACED:
    case MessageState.DROPPED:
    case MessageState.DEAD_LETTERED:
    case MessageState.COMPLETED:
    case MessageState.FAILED:
      return true
  }
}

/** What a receipt is made of. */
export interface ReachedState {
  /** Empty for an account as a whole. */
  readonly deviceId: string
  /** Of an account as a whole: how many devices the message is for. */
  readonly deviceCount?: number
  /** With its hop times: what is STORED is taken back by its accept time. */
  readonly outcome: MessageOutcome
  /** When the state was reached, in µs since the epoch. */
  readonly time: number
  readonly edgeFinal?: boolean
  /** The data of the device's result. */
  readonly result?: Buffer
}

const detailLengthMax = 1_024
const resultTimeoutDefaultMs = 600_000

/**
 * Makes the receipt of a state that a message has reached at a device. Readers judge each receipt by its own `confirm`, so one that the edge calls
 * final says WRITTEN there, whatever the publisher wanted.
 */
export function receiptOf(message: QueuedMessage, reached: ReachedState): Receipt {
  const { deviceId, deviceCount = 0, outcome, time, edgeFinal, result } = reached
  const final = edgeFinal === true && outcome.state === MessageState.WRITTEN
  return Receipt.fromPartial({
    messageId: message.messageId,
    deviceId,
    outcome: { ...outcome, detail: outcome.detail.slice(0, detailLengthMax) },
    time,
    expireTime: message.expireTime,
    resultDeadline: resultDeadlineOf(message, outcome.state, time),
    confirm: final ? ConfirmLevel.WRITTEN : message.message?.confirm || ConfirmLevel.ACKNOWLEDGED,
    ...(result ? { result } : {}),
    principal: message.principal,
    deviceCount,
  })
}

/** From the acknowledgement on; before it, the latest moment that it could come to. 0 where no result is wanted. */
function resultDeadlineOf({ message, expireTime }: QueuedMessage, state: MessageState, time: number): number {
  if (message?.confirm !== ConfirmLevel.RESULT) return 0
  const timeoutMs = message.resultTimeout ? msFromDuration(message.resultTimeout) : resultTimeoutDefaultMs
  return (state < MessageState.ACKNOWLEDGED ? expireTime : time) + timeoutMs * 1_000
}
