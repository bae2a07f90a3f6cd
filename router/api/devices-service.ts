import { EdgeLeaseState } from '../../gen/push/internal/v1/registry.ts'
import type { DeviceServiceImplementation } from '../../gen/push/v1/devices.ts'
import { PushError } from '../../service-kit/errors.ts'
import { isPushId } from '../../service-kit/ids.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import type { Lookups } from '../dispatch/lookups.ts'
import { notYet } from './message-check.ts'

/** Throws INVALID_REQUEST unless the text may be a device id. */
export function requireDeviceId(deviceId: string): void {
  if (isPushId(deviceId)) return
  const description = 'must be 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -'
  throw new PushError('INVALID_REQUEST', `device_id ${description}`, {}, { violations: [{ field: 'device_id', description }] })
}

/** Answers where devices are, from the registry and past the route cache. */
export function createDevicesService(lookups: Lookups): DeviceServiceImplementation {
  return {
    async getDevice({ deviceId }) {
      requireDeviceId(deviceId)
      const { routes } = await lookups.find(deviceId, { fresh: true })
      // The newest row whose edge gives signs of life; without one, the newest, so that support can see where the device was.
      const shown = routes.find(({ edgeState }) => edgeState !== EdgeLeaseState.LAPSED) ?? routes[0]
      const row = shown?.row
      if (!shown || !row) throw new PushError('DEVICE_UNKNOWN', `device ${deviceId} has no session`, { device_id: deviceId })
      return {
        device: {
          deviceId,
          connected: shown.edgeState !== EdgeLeaseState.LAPSED,
          edgeId: row.edgeId,
          sessionId: row.sessionId,
          accountId: row.accountId,
          connectedTime: timestampFromMicros(row.connectedTime),
          protocol: row.protocol,
        },
      }
    },
    async listAccountDevices() {
      throw notYet('ListAccountDevices')
    },
  }
}
