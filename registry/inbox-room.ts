import { collapse, compareAccepted } from './inbox-entry.ts'
import type { InboxSummary } from './inbox-store.ts'

/** How much may wait for one device. */
export interface InboxBounds {
  readonly messagesMax: number
  readonly bytesMax: number
}

/** An entry that has to go. */
export interface Victim {
  readonly summary: InboxSummary
  /** A newer version of its collapse key waits; otherwise there was no room. */
  readonly replaced: boolean
}

/** What is to be done for a newcomer. */
export interface RoomPlan {
  /** It may be stored. Otherwise nothing is to be done. */
  readonly fits: boolean
  readonly victims: readonly Victim[]
  /** What may still be stored after it; 0 or more. */
  readonly left: { readonly messages: number; readonly bytes: number }
}

/**
 * Finds room for a newcomer. When the inbox is full, older versions of collapse keys go first, all of them; then the oldest
 * entry of the lowest priority, again and again, as long as that priority is below the newcomer's. RECOVERY is never made
 * to go for want of room. A newcomer that is an older version itself is among those that go.
 */
export function planRoom(waiting: readonly InboxSummary[], newcomer: InboxSummary, bounds: InboxBounds): RoomPlan {
  const others = waiting.filter(({ messageId }) => messageId !== newcomer.messageId)
  const leftOf = (kept: readonly InboxSummary[]) => ({
    messages: bounds.messagesMax - kept.length,
    bytes: bounds.bytesMax - kept.reduce((sum, { size }) => sum + size, 0),
  })
  const holds = ({ messages, bytes }: { messages: number; bytes: number }) => messages >= 0 && bytes >= 0

  const all = [...others, newcomer]
  let left = leftOf(all)
  // A repeat of what waits already takes no more room than it has.
  if (holds(left) || others.length < waiting.length) return { fits: true, victims: [], left: atLeastNothing(left) }

  const { newest, replaced } = collapse(all)
  const victims: Victim[] = replaced.map((summary) => ({ summary, replaced: true }))
  left = leftOf(newest)
  const candidates = newest
    .filter(({ priority, recovery }) => !recovery && priority > newcomer.priority)
    .sort((a, b) => b.priority - a.priority || compareAccepted(a, b))
  for (const summary of candidates) {
    if (holds(left)) break
    victims.push({ summary, replaced: false })
    left = { messages: left.messages + 1, bytes: left.bytes + summary.size }
  }
  if (holds(left)) return { fits: true, victims, left }
  return { fits: false, victims: [], left: { messages: 0, bytes: 0 } }
}

function atLeastNothing({ messages, bytes }: RoomPlan['left']): RoomPlan['left'] {
  return { messages: Math.max(0, messages), bytes: Math.max(0, bytes) }
}
