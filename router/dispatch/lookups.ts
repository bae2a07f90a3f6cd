import {
  type DeviceSessions,
  RegistryServiceDefinition,
  type SessionRoute,
  type SessionRow,
} from '../../gen/push/internal/v1/registry.ts'
import { createBatcher } from '../../service-kit/batcher.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { RouteCache } from './route-cache.ts'

/** What look-ups need. */
export interface LookupsOptions {
  readonly registry: GrpcConnection
  readonly cache: RouteCache
  readonly metrics: Metrics
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
}

/** What the registry says of one device. */
export interface FoundRoutes {
  /** Newest first. A remembered route comes alone, and without the state of its edge. */
  readonly routes: SessionRoute[]
  /** The registry has older rows. */
  readonly more: boolean
  /** It was remembered: the registry has not been asked, and may be away. */
  readonly remembered: boolean
}

/** Asks the registry about devices and rows, many at a time. */
export interface Lookups {
  /**
   * Says where a device is. Whatever is asked for in one tick goes out in one call; a device that is asked for twice in it, once.
   * `fresh` goes past the cache; `allRows` reads the device's rows whole.
   * Throws REGISTRY_UNAVAILABLE when the registry does not answer: this says nothing about the device.
   */
  find(deviceId: string, how?: { fresh?: boolean; allRows?: boolean }): Promise<FoundRoutes>
  /** One page of the devices that have logged in to an account, by id; an empty token for the first. Throws REGISTRY_UNAVAILABLE. */
  accountDevices(accountId: string, pageToken: string, pageSize?: number): Promise<{ deviceIds: string[]; nextPageToken: string }>
  /** Removes one row by its key. Throws REGISTRY_UNAVAILABLE. */
  unregister(row: SessionRow): Promise<void>
}

interface Question {
  readonly deviceId: string
  readonly allRows: boolean
}

/** Devices in one call; the registry takes no more. */
const batchSizeMax = 1_000
/** Calls at the same time. */
const callsInFlightMax = 8
/** Questions that may wait for a call. In-flight budgets keep far below it. */
const questionsQueuedMax = 200_000

/** Creates the registry's asker. It owns nothing that must be closed. */
export function createLookups(options: LookupsOptions): Lookups {
  const { registry, cache, metrics, callDeadlineMs } = options
  const client = registry.client(RegistryServiceDefinition)
  const failures = metrics.counter('push_router_lookup_failures_total', 'Calls to the registry that did not answer', ['call'])

  function unavailable(call: string, cause: unknown): PushError {
    failures.inc({ call })
    return new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer; try again', {}, { cause })
  }

  async function lookUp(questions: Question[], allRows: boolean): Promise<Map<string, DeviceSessions>> {
    const deviceIds = [
      ...new Set(questions.filter((question) => question.allRows === allRows).map((question) => question.deviceId)),
    ]
    if (deviceIds.length === 0) return new Map()
    const { devices } = await client.lookup({ deviceIds, allRows }, { deadlineMs: callDeadlineMs })
    return new Map(devices.map((device) => [device.deviceId, device]))
  }

  const batcher = createBatcher<Question, DeviceSessions | undefined>({
    maxBatch: batchSizeMax,
    maxInFlight: callsInFlightMax,
    maxQueued: questionsQueuedMax,
    async runBatch(questions) {
      try {
        const [newest, all] = await Promise.all([lookUp(questions, false), lookUp(questions, true)])
        return questions.map(({ deviceId, allRows }) => (allRows ? all : newest).get(deviceId))
      } catch (cause) {
        throw unavailable('Lookup', cause)
      }
    },
  })

  return {
    async find(deviceId, { fresh = false, allRows = false } = {}) {
      const remembered = fresh || allRows ? undefined : cache.get(deviceId)
      if (remembered) return { routes: [{ row: remembered, edgeState: 0 }], more: false, remembered: true }
      const found = await batcher.run({ deviceId, allRows })
      if (!found || found.error) throw unavailable('Lookup', found?.error?.message ?? 'the answer lacks the device')
      const newest = found.routes[0]?.row
      if (newest) cache.set(newest)
      return { routes: found.routes, more: found.more, remembered: false }
    },
    async accountDevices(accountId, pageToken, pageSize = batchSizeMax) {
      try {
        return await client.lookupAccount({ accountId, pageSize, pageToken }, { deadlineMs: callDeadlineMs })
      } catch (cause) {
        throw unavailable('LookupAccount', cause)
      }
    },
    async unregister(row) {
      try {
        const { deviceId, sessionId, epoch } = row
        await client.unregister({ sessions: [{ deviceId, sessionId, epoch }] }, { deadlineMs: callDeadlineMs })
      } catch (cause) {
        throw unavailable('Unregister', cause)
      }
    },
  }
}
