import {
  type InboxEntry,
  type InboxKey,
  InboxServiceDefinition,
  type ReadResponse,
  type StoreResult,
} from '../../gen/push/internal/v1/inbox.ts'
import { createBatcher } from '../../service-kit/batcher.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Metrics } from '../../service-kit/metrics.ts'

/** What the inbox's client needs. */
export interface InboxOptions {
  readonly registry: GrpcConnection
  readonly metrics: Metrics
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
}

/** The devices' inboxes, kept by the registry. Everything throws REGISTRY_UNAVAILABLE when it does not answer: what was asked for may have happened. */
export interface Inbox {
  /** Stores one message, with the device's hint. What had to go for it is in the answer. Safe to repeat. */
  store(entry: InboxEntry): Promise<StoreResult>
  /** Reads a device's inbox whole. */
  read(deviceId: string): Promise<ReadResponse>
  /** Removes one entry at its own accept time. Safe to repeat. */
  remove(entry: InboxKey): Promise<void>
}

/** Entries in one call, far below what the transport takes: each may have 64 KiB. */
const storeBatchMax = 32
const removeBatchMax = 1_000
const callsInFlightMax = 16
const queuedMax = 200_000

/** Creates the client. It owns nothing that must be closed. */
export function createInbox({ registry, metrics, callDeadlineMs }: InboxOptions): Inbox {
  const client = registry.client(InboxServiceDefinition)
  const failures = metrics.counter('push_router_inbox_failures_total', 'Calls to the inboxes that were not answered', ['call'])

  async function answered<T>(call: string, ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (cause) {
      failures.inc({ call })
      throw new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer for the inbox; try again', {}, { cause })
    }
  }

  const stores = createBatcher<InboxEntry, StoreResult>({
    maxBatch: storeBatchMax,
    maxInFlight: callsInFlightMax,
    maxQueued: queuedMax,
    runBatch: async (entries) => (await client.store({ entries }, { deadlineMs: callDeadlineMs })).results,
  })
  const removes = createBatcher<InboxKey, undefined>({
    maxBatch: removeBatchMax,
    maxInFlight: callsInFlightMax,
    maxQueued: queuedMax,
    async runBatch(entries) {
      await client.remove({ entries }, { deadlineMs: callDeadlineMs })
      return entries.map(() => undefined)
    },
  })

  return {
    store: (entry) =>
      answered('Store', async () => {
        const result = await stores.run(entry)
        if (result.result?.$case === 'error' || !result.result)
          throw new Error(result.result?.value.message ?? 'the answer is empty')
        return result
      }),
    read: (deviceId) => answered('Read', () => client.read({ deviceId }, { deadlineMs: callDeadlineMs })),
    remove: (entry) => answered('Remove', () => removes.run(entry)),
  }
}
