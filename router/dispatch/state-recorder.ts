import type { DeviceResult } from '../../gen/push/internal/v1/edge.ts'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { type HopTimes, MessageState, ReceiptMode, StateReason } from '../../gen/push/v1/message.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { receiptOf, wantsReceipt } from './receipt-policy.ts'
import type { Receipts } from './receipts.ts'
import type { Hops } from './settlement.ts'

/** A state that a message has reached at a device. */
export interface Reached {
  readonly state: MessageState
  readonly reason: StateReason
  readonly detail?: string
  readonly edgeId?: string
  readonly sessionId?: string
  readonly hops?: Readonly<Hops>
  /** The edge says that the device cannot acknowledge. */
  readonly edgeFinal?: boolean
  readonly result?: DeviceResult | undefined
}

/** Records states as far as the message's publisher wants them recorded. */
export interface StateRecorder {
  /** Resolves once the receipt is written, or none is wanted. Rejects with REGISTRY_UNAVAILABLE. */
  record(message: QueuedMessage, deviceId: string, reached: Reached, how?: { returnedByDirectCall?: boolean }): Promise<void>
  /**
   * Records for how many devices a message to an account is, in the row that has no device; with 0 that it is dropped, as there are none. Resolves
   * and rejects as `record`.
   */
  recordAccount(message: QueuedMessage, deviceCount: number): Promise<void>
}

/** Creates the recorder. */
export function createStateRecorder(receipts: Receipts, clock: Clock): StateRecorder {
  return {
    async record(message, deviceId, reached, { returnedByDirectCall = false } = {}) {
      const content = message.message
      if (!content) return
      const { edgeFinal = false, result } = reached
      if (
        !wantsReceipt(content.receipts || ReceiptMode.FINAL, content.confirm, reached.state, { returnedByDirectCall, edgeFinal })
      )
        return
      await receipts.record(
        receiptOf(message, {
          deviceId,
          time: clock.nowMicros(),
          edgeFinal,
          outcome: {
            state: reached.state,
            reason: reached.reason,
            detail: reached.detail || result?.message || '',
            edgeId: reached.edgeId ?? '',
            sessionId: reached.sessionId ?? '',
            hops: hopTimes(reached.hops ?? { ...noHops, accepted: message.acceptTime }),
          },
          ...(result ? { result: result.data } : {}),
        }),
      )
    },
    async recordAccount(message, deviceCount) {
      if (message.message?.receipts === ReceiptMode.NONE) return
      const none = deviceCount === 0
      await receipts.record(
        receiptOf(message, {
          deviceId: '',
          deviceCount,
          time: clock.nowMicros(),
          outcome: {
            state: none ? MessageState.DROPPED : MessageState.ACCEPTED,
            reason: none ? StateReason.NO_DEVICES : StateReason.UNSPECIFIED,
            detail: '',
            edgeId: '',
            sessionId: '',
            hops: hopTimes({ ...noHops, accepted: message.acceptTime }),
          },
        }),
      )
    },
  }
}

const noHops: Hops = { accepted: 0, consumed: 0, lookedUp: 0, sentToEdge: 0, written: 0, answered: 0 }

/** Hop times as the contract has them; a hop that was not passed is unset. */
export function hopTimes(hops: Readonly<Hops>): HopTimes {
  const time = (micros: number) => (micros > 0 ? timestampFromMicros(micros) : undefined)
  return {
    accepted: time(hops.accepted),
    consumed: time(hops.consumed),
    lookedUp: time(hops.lookedUp),
    sentToEdge: time(hops.sentToEdge),
    written: time(hops.written),
    answered: time(hops.answered),
  }
}
