import type { InboxEntry } from '../gen/push/internal/v1/inbox.ts'
import { QueuedMessage } from '../gen/push/internal/v1/queue.ts'
import { MessageClass, Priority } from '../gen/push/v1/message.ts'
import type { InboxRow, InboxSummary } from './inbox-store.ts'

/** The row that keeps a message. */
export function inboxRowOf(queued: QueuedMessage): InboxRow {
  const { messageId, acceptTime, expireTime, message: content } = queued
  const priority = content?.priority ?? Priority.UNSPECIFIED
  const message = QueuedMessage.encode(queued).finish()
  return {
    messageId,
    acceptTime,
    expireTime,
    priority: priority === Priority.UNSPECIFIED ? Priority.NORMAL : priority,
    recovery: content?.messageClass === MessageClass.RECOVERY,
    collapseKey: collapseKeyOf(queued),
    size: message.length,
    message,
  }
}

/** The entry that a row keeps. Throws when the bytes are no message. */
export function inboxEntryOf(deviceId: string, message: Uint8Array): InboxEntry & { message: QueuedMessage } {
  return { deviceId, message: QueuedMessage.decode(message) }
}

/** The same entry without its payload: enough for a receipt. */
export function withoutPayload({ deviceId, message }: InboxEntry): InboxEntry {
  if (message?.message === undefined) return { deviceId, message }
  return { deviceId, message: { ...message, message: { ...message.message, payload: Buffer.alloc(0) } } }
}

/** Orders two messages by who was accepted first: negative when it was `a`. Ties go by message id. */
export function compareAccepted(
  a: Pick<InboxSummary, 'acceptTime' | 'messageId'>,
  b: Pick<InboxSummary, 'acceptTime' | 'messageId'>,
): number {
  if (a.acceptTime !== b.acceptTime) return a.acceptTime - b.acceptTime
  return a.messageId < b.messageId ? -1 : a.messageId > b.messageId ? 1 : 0
}

/** Orders two messages by which is delivered first: negative when it is `a`. */
export function compareDelivery(a: InboxSummary, b: InboxSummary): number {
  return a.priority - b.priority || compareAccepted(a, b)
}

/**
 * Parts the newest version of each collapse key from the older ones. What counts is when they were accepted, not when they
 * came here: a version from a slow clock is old however late it comes.
 */
export function collapse<T extends InboxSummary>(rows: readonly T[]): { newest: T[]; replaced: T[] } {
  const byKey = new Map<string, T>()
  for (const row of rows) {
    if (row.collapseKey === '') continue
    const other = byKey.get(row.collapseKey)
    if (other === undefined || compareAccepted(row, other) > 0) byKey.set(row.collapseKey, row)
  }
  const isNewest = (row: T) => row.collapseKey === '' || byKey.get(row.collapseKey) === row
  return { newest: rows.filter(isNewest), replaced: rows.filter((row) => !isNewest(row)) }
}

/** Versions of one collapse key are those of the same principal, class and target. */
function collapseKeyOf({ principal, message }: QueuedMessage): string {
  if (message === undefined || message.collapseKey === '') return ''
  const { messageClass, target, collapseKey } = message
  const kind = messageClass === MessageClass.UNSPECIFIED ? MessageClass.USER : messageClass
  return JSON.stringify([principal, kind, target?.$case, target?.value, collapseKey])
}
