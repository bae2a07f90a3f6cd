import { InboxServiceDefinition } from '../../gen/push/internal/v1/inbox.ts'
import { EdgeLeaseState, type SessionRoute } from '../../gen/push/internal/v1/registry.ts'
import type { Device, DeviceServiceImplementation } from '../../gen/push/v1/devices.ts'
import { invalidField, PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import { isPushId } from '../../service-kit/ids.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import type { Lookups } from '../dispatch/lookups.ts'
import type { Permissions } from './permissions.ts'

/** Throws INVALID_REQUEST unless the text may be a device id. */
export function requireDeviceId(deviceId: string): void {
  requirePushId('device_id', deviceId)
}

function requirePushId(field: string, id: string): void {
  if (!isPushId(id)) throw invalidField(field, 'must be 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -')
}

/** Devices on one page of an account's list unless asked for otherwise, and at most. */
const pageSizeDefault = 100
const pageSizeMax = 1_000

/** What answers about devices need. */
export interface DevicesServiceOptions {
  readonly lookups: Lookups
  readonly registry: GrpcConnection
  readonly permissions: Permissions
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
}

/** Answers where devices are, from the registry and past the route cache. */
export function createDevicesService({
  lookups,
  registry,
  permissions,
  callDeadlineMs,
}: DevicesServiceOptions): DeviceServiceImplementation<ServedContext> {
  const inboxes = registry.client(InboxServiceDefinition)

  /** Counting is the first thing that a busy registry refuses: where the device is can be said without it. */
  async function inboxCount(deviceId: string): Promise<number | undefined> {
    try {
      return (await inboxes.count({ deviceId }, { deadlineMs: callDeadlineMs })).entryCount
    } catch {
      return undefined
    }
  }

  return {
    async getDevice({ deviceId }, { caller }) {
      permissions.requireOperation(caller, 'devices.read')
      requireDeviceId(deviceId)
      const [{ routes }, count] = await Promise.all([lookups.find(deviceId, { fresh: true }), inboxCount(deviceId)])
      const device = { ...describe(deviceId, routes), inboxCount: count }
      if (device.sessionId === '' && !count)
        throw new PushError('DEVICE_UNKNOWN', `device ${deviceId} has no session`, { device_id: deviceId })
      return { device }
    },
    async listAccountDevices({ accountId, pageSize, pageToken }, { caller }) {
      permissions.requireOperation(caller, 'devices.read')
      requirePushId('account_id', accountId)
      if (pageSize < 0 || pageSize > pageSizeMax) {
        throw invalidField('page_size', `must be from 1 to ${pageSizeMax}; unset means ${pageSizeDefault}`)
      }
      const page = await lookups.accountDevices(accountId, pageToken, pageSize || pageSizeDefault)
      const devices = await Promise.all(
        page.deviceIds.map(async (deviceId) => describe(deviceId, (await lookups.find(deviceId, { fresh: true })).routes)),
      )
      return { devices, nextPageToken: page.nextPageToken }
    },
  }
}

/**
 * A device with the newest row whose edge gives signs of life; without one, with the newest, so that support can see where the device was. A device
 * without any row has only its id.
 */
function describe(deviceId: string, routes: readonly SessionRoute[]): Device {
  const shown = routes.find(({ edgeState }) => edgeState !== EdgeLeaseState.LAPSED) ?? routes[0]
  const row = shown?.row
  return {
    deviceId,
    connected: row !== undefined && shown?.edgeState !== EdgeLeaseState.LAPSED,
    edgeId: row?.edgeId ?? '',
    sessionId: row?.sessionId ?? '',
    accountId: row?.accountId ?? '',
    connectedTime: row ? timestampFromMicros(row.connectedTime) : undefined,
    protocol: row?.protocol ?? '',
    inboxCount: undefined,
  }
}
