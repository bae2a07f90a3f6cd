import { type Message, MessageClass, Priority, StateReason } from '../gen/push/v1/message.ts'
import type { DeadLetterSummary } from '../gen/push/v1/operations.ts'
import { isoTime, nameOf } from './output.ts'

/** A dead letter as fields of a JSON object. */
export function summaryFields(letter: DeadLetterSummary): Record<string, unknown> {
  return {
    position: letter.position,
    time: isoTime(letter.time),
    reason: nameOf(StateReason, letter.reason),
    error: letter.error,
    key: letter.key || undefined,
    message_id: letter.messageId || undefined,
    origin: letter.origin || undefined,
  }
}

/** The message in a dead letter, without its payload. */
export function buriedMessageFields(message: Message): Record<string, unknown> {
  const { target } = message
  return {
    device_id: target?.$case === 'deviceId' ? target.value : undefined,
    account_id: target?.$case === 'accountId' ? target.value : undefined,
    class: nameOf(MessageClass, message.messageClass),
    name: message.name || undefined,
    priority: nameOf(Priority, message.priority),
    content_type: message.contentType || undefined,
    payload_bytes: message.payload.length,
  }
}
