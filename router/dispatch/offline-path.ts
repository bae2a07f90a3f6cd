import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { MessageState, type StateReason } from '../../gen/push/v1/message.ts'

/** How a message ended on the offline path. */
export interface OfflineEnd {
  readonly state: MessageState
  readonly reason: StateReason
}

/**
 * Where messages go that their device cannot have now. The one place where "store" happens, for messages from the queue and for direct ones alike.
 * An implementation may throw REGISTRY_UNAVAILABLE: the message is then kept and tried again, or its direct call fails.
 */
export interface OfflinePath {
  /** Takes a message with time to live above 0 off dispatch's hands. `reason` says why it could not be delivered. */
  store(message: QueuedMessage, deviceId: string, reason: StateReason): Promise<OfflineEnd>
}

/** The offline path of a plane without inboxes: the message ends here, for the reason that brought it here. */
export const droppingOfflinePath: OfflinePath = {
  store: async (_message, _deviceId, reason) => ({ state: MessageState.DROPPED, reason }),
}
