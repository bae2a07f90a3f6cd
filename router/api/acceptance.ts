import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { uuidV7, uuidV8FromHash } from '../../service-kit/ids.ts'
import type { Random } from '../../service-kit/random.ts'
import type { CheckedMessage } from './message-check.ts'

/** Gives messages their id and times. */
export interface Acceptance {
  /** Accepts a checked message of this principal. */
  accept(checked: CheckedMessage, principal: string): QueuedMessage
}

/**
 * Creates the giver of ids and times. Accept times rise strictly within one process, in µs, even when the wall clock does not; across routers
 * they may tie or go back, and ties are ordered by message id.
 */
export function createAcceptance(clock: Clock, random: Random): Acceptance {
  let last = 0
  return {
    accept({ message, lifeMs }, principal) {
      const acceptTime = Math.max(last + 1, clock.nowMicros())
      last = acceptTime
      return QueuedMessage.fromPartial({
        // The same publish under the same key is the same message, on whichever router it is repeated.
        messageId: message.idempotencyKey ? uuidV8FromHash([principal, message.idempotencyKey]) : uuidV7(clock, random),
        message,
        acceptTime,
        expireTime: acceptTime + lifeMs * 1_000,
        principal,
      })
    },
  }
}
