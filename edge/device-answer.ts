import type { DeviceResult } from '../gen/push/internal/v1/edge.ts'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import type { LateAnswer } from '../gen/push/internal/v1/uplink.ts'
import type { ResultFrame } from '../gen/push/v1/device.ts'
import { type OutcomeFacts, unwritten } from './entry.ts'

/** What a device says of a message. */
export type DeviceAnswer =
  | { readonly type: 'ack' }
  | { readonly type: 'nack'; readonly detail: string }
  | { readonly type: 'result'; readonly result: DeviceResult }

/** The result in a frame; its data as JSON, in the device's own spelling where the frame still has it. */
export function resultOf({ status, data, data_bytes: bytes, message }: ResultFrame): DeviceAnswer {
  const json = Buffer.from(bytes ?? (data === undefined ? '' : JSON.stringify(data)))
  return { type: 'result', result: { ok: status === 'ok', data: json, message: message ?? '' } }
}

/** Where nobody asked for a result, it acknowledges when it says done, and refuses when it says failed. */
export function outcomeOf(answer: DeviceAnswer, wantsResult: boolean, sessionId: string): OutcomeFacts {
  if (answer.type === 'ack') return unwritten(OutcomeKind.ACKNOWLEDGED, sessionId)
  if (answer.type === 'nack') return unwritten(OutcomeKind.NACKED, sessionId, answer.detail)
  const { result } = answer
  if (wantsResult) return { ...unwritten(OutcomeKind.RESULT, sessionId), result }
  return result.ok ? unwritten(OutcomeKind.ACKNOWLEDGED, sessionId) : unwritten(OutcomeKind.NACKED, sessionId, result.message)
}

/** The same for a router that does not wait for it. */
export function lateAnswerOf(deviceId: string, messageId: string, facts: OutcomeFacts): LateAnswer {
  const { kind, answeredTime, detail, result } = facts
  return { deviceId, messageId, kind, answeredTime, detail, result }
}

/** What the device has told already, when it repeats itself: an acknowledgement says nothing of the result that may follow. */
export function isRepeated(answer: DeviceAnswer, known: OutcomeFacts): boolean {
  if (known.kind === OutcomeKind.REPLACED) return false
  return answer.type !== 'result' || known.kind !== OutcomeKind.ACKNOWLEDGED
}
