import type { Clock } from '../service-kit/clock.ts'
import { latencyBucketsSeconds, type Metrics } from '../service-kit/metrics.ts'
import type { RegistryStores } from './stores.ts'

/** The same stores, with how long each step takes and how many fail. */
export function measuredStores(stores: RegistryStores, clock: Clock, metrics: Metrics): RegistryStores {
  const seconds = metrics.histogram(
    'push_registry_store_step_seconds',
    'How long steps at the store take, failed ones included',
    latencyBucketsSeconds,
    ['step'],
  )
  const failures = metrics.counter(
    'push_registry_store_step_failures_total',
    'Steps at the store that failed or were not answered',
    ['step'],
  )
  const measured =
    <Args extends unknown[], R>(step: string, run: (...args: Args) => Promise<R>) =>
    async (...args: Args): Promise<R> => {
      const startedAt = clock.monotonic()
      try {
        return await run(...args)
      } catch (error) {
        failures.inc({ step })
        throw error
      } finally {
        seconds.observe({ step }, (clock.monotonic() - startedAt) / 1000)
      }
    }
  const { sessions, edges, inbox, receipts } = stores
  return {
    sessions: {
      read: measured('read_sessions', sessions.read),
      insert: measured('insert_session', sessions.insert),
      delete: measured('delete_session', sessions.delete),
      writeAccountDevice: measured('write_account_device', sessions.writeAccountDevice),
      readAccountDevice: measured('read_account_device', sessions.readAccountDevice),
      deleteAccountDevice: measured('delete_account_device', sessions.deleteAccountDevice),
      readAccountDevices: measured('read_account_devices', sessions.readAccountDevices),
      writeTakeover: measured('write_takeover', sessions.writeTakeover),
      countTakeovers: measured('count_takeovers', sessions.countTakeovers),
      clockMicros: measured('read_clock', sessions.clockMicros),
      close: sessions.close,
    },
    edges: {
      writeLease: measured('write_lease', edges.writeLease),
      readAll: measured('read_leases', edges.readAll),
      clockMicros: measured('read_clock', edges.clockMicros),
      close: edges.close,
    },
    inbox: {
      insert: measured('insert_inbox_row', inbox.insert),
      writeHint: measured('write_inbox_hint', inbox.writeHint),
      list: measured('list_inbox', inbox.list),
      read: measured('read_inbox', inbox.read),
      readMessage: measured('read_inbox_message', inbox.readMessage),
      delete: measured('delete_inbox_row', inbox.delete),
      close: inbox.close,
    },
    receipts: {
      insert: measured('insert_receipt', receipts.insert),
      read: measured('read_receipts', receipts.read),
      close: receipts.close,
    },
    close: stores.close,
  }
}
