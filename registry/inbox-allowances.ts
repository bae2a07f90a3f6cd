import type { Metrics } from '../service-kit/metrics.ts'
import type { Random } from '../service-kit/random.ts'
import type { InboxBounds } from './inbox-room.ts'

/** Counted are every tenth store to a device, and every one that may not fit by what the last count has found. */
const storesPerCount = 10

/** What may be stored to a device before its inbox is counted again. */
interface Allowance {
  stores: number
  bytes: number
}

/** Says when a device's inbox is to be counted. */
export interface InboxAllowances {
  /** Takes leave to store so many bytes without counting; false when it is time to count. */
  take(deviceId: string, bytes: number): boolean
  /** Notes what a count has left room for. */
  counted(deviceId: string, left: { readonly messages: number; readonly bytes: number }): void
}

/** What they are made with. */
export interface InboxAllowancesOptions {
  readonly bounds: InboxBounds
  /** Devices that are remembered; the ones not stored to for longest are forgotten. */
  readonly devicesMax: number
  readonly random: Random
  readonly metrics: Metrics
}

/**
 * Opens the allowances. Each registry has its own, so that an inbox may pass its bounds by some stores of each. A device that
 * is not known, or forgotten, begins somewhere within its ten at random: of many such devices every tenth store is counted
 * all the same.
 */
export function createInboxAllowances({ bounds, devicesMax, random, metrics }: InboxAllowancesOptions): InboxAllowances {
  const known = new Map<string, Allowance>()
  const devices = metrics.gauge('push_registry_inbox_counted_devices', 'Devices whose room in the inbox is remembered')
  const forgotten = metrics.counter(
    'push_registry_inbox_forgotten_devices_total',
    'Devices whose room was forgotten because too many were remembered',
  )

  /** As the last of all to be forgotten. */
  const remember = (deviceId: string, allowance: Allowance): Allowance => {
    known.delete(deviceId)
    known.set(deviceId, allowance)
    const [oldest] = known.keys()
    if (known.size > devicesMax && oldest !== undefined) {
      known.delete(oldest)
      forgotten.inc()
    }
    devices.set(known.size)
    return allowance
  }

  return {
    take(deviceId, bytes) {
      const allowance = remember(
        deviceId,
        known.get(deviceId) ?? {
          stores: Math.floor(random.next() * storesPerCount),
          bytes: Math.floor(bounds.bytesMax / storesPerCount),
        },
      )
      if (allowance.stores < 1 || allowance.bytes < bytes) return false
      allowance.stores -= 1
      allowance.bytes -= bytes
      return true
    },
    counted(deviceId, { messages, bytes }) {
      remember(deviceId, { stores: Math.min(storesPerCount - 1, messages), bytes })
    },
  }
}
