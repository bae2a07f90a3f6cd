import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { RegistryServiceDefinition } from '../../gen/push/internal/v1/registry.ts'
import { StateReason } from '../../gen/push/v1/message.ts'
import { createBatcher } from '../../service-kit/batcher.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Metrics } from '../../service-kit/metrics.ts'

/** What it needs. */
export interface LeftAccountsOptions {
  readonly registry: GrpcConnection
  readonly metrics: Metrics
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
}

/** Tells the registry which devices have left their account, as edges have said. */
export interface LeftAccounts {
  /**
   * The device's session is not of that account. Returns at once and never fails: the registry judges whether the device is to be forgotten, and what
   * is not told is told by the account's next message. Whatever comes in one tick goes out in one call.
   */
  tell(accountId: string, deviceId: string): void
}

/** Tells it where that is why a message to an account did not come to a device. */
export function tellIfLeft(
  leftAccounts: LeftAccounts,
  { message }: QueuedMessage,
  deviceId: string,
  reason: StateReason | undefined,
): void {
  const target = message?.target
  if (reason === StateReason.ACCOUNT_MISMATCH && target?.$case === 'accountId') leftAccounts.tell(target.value, deviceId)
}

const batchSizeMax = 1_000
const callsInFlightMax = 2
/** Devices that may wait for a call. Above it they are left out, and counted. */
export const leftAccountsQueuedMax = 10_000

/** Creates the teller. It owns nothing that must be closed. */
export function createLeftAccounts({ registry, metrics, callDeadlineMs }: LeftAccountsOptions): LeftAccounts {
  const client = registry.client(RegistryServiceDefinition)
  const told = metrics.counter(
    'push_router_left_accounts_total',
    'Devices that had left the account of a message, by whether the registry was told',
    ['result'],
  )
  const waiting = new Set<string>()
  const batcher = createBatcher<{ accountId: string; deviceId: string }, undefined>({
    maxBatch: batchSizeMax,
    maxInFlight: callsInFlightMax,
    maxQueued: leftAccountsQueuedMax,
    async runBatch(accountDevices) {
      await client.forgetAccountDevices({ accountDevices }, { deadlineMs: callDeadlineMs })
      return accountDevices.map(() => undefined)
    },
  })
  return {
    tell(accountId, deviceId) {
      // Neither id has a slash.
      const key = `${accountId}/${deviceId}`
      if (waiting.has(key)) return
      waiting.add(key)
      batcher
        .run({ accountId, deviceId })
        .then(
          () => told.inc({ result: 'told' }),
          () => told.inc({ result: 'failed' }),
        )
        .finally(() => waiting.delete(key))
    },
  }
}
