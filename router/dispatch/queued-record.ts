import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { Message } from '../../gen/push/v1/message.ts'
import { isPushId } from '../../service-kit/ids.ts'

/** A record's message, with what dispatch needs of it. */
export interface ReadableRecord {
  readonly queued: QueuedMessage
  readonly content: Message
  readonly target: NonNullable<Message['target']>
}

/** Reads a record's value, or says what is wrong with it. */
export function readQueuedRecord(value: Uint8Array): ReadableRecord | string {
  let queued: QueuedMessage
  try {
    queued = QueuedMessage.decode(value)
  } catch (cause) {
    return `not a QueuedMessage: ${cause instanceof Error ? cause.message : String(cause)}`
  }
  const content = queued.message
  if (!queued.messageId) return 'the record has no message id'
  if (!content) return 'the record has no message'
  if (queued.expireTime <= 0 || queued.acceptTime <= 0) return 'the record has no accept time or no expire time'
  const { target } = content
  if (!target) return 'the record is for nobody'
  if (!isPushId(target.value)) return 'the record has a malformed device or account id'
  return { queued, content, target }
}
