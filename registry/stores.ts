import { PushError } from '../service-kit/errors.ts'
import type { EdgeStore } from './edge-store.ts'
import type { InboxStore } from './inbox-store.ts'
import type { ReceiptStore } from './receipt-store.ts'
import type { SessionStore } from './session-store.ts'

/** What a registry keeps, behind one connection or file. `close()` of any of them is part of `close()` here. */
export interface RegistryStores {
  readonly sessions: SessionStore
  readonly edges: EdgeStore
  readonly inbox: InboxStore
  readonly receipts: ReceiptStore
  close(): Promise<void>
}

/**
 * The one error that stores throw for trouble of their own. Callers learn that what they asked for may or may not have
 * happened; the store's own words go to the log as the cause.
 */
export function storeUnavailable(cause: unknown): PushError {
  return new PushError(
    'REGISTRY_UNAVAILABLE',
    'the registry storage does not answer; what was asked for may have happened',
    {},
    { cause, retryAfterMs: 200 },
  )
}
