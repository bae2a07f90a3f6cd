import type { Device } from '../gen/push/v1/devices.ts'
import { isoTime } from './output.ts'

/** Where a device is, as a JSON object. */
export function deviceStateFields(device: Device) {
  return {
    device_id: device.deviceId,
    connected: device.connected,
    edge_id: device.edgeId || undefined,
    session_id: device.sessionId || undefined,
    account_id: device.accountId || undefined,
    connected_time: isoTime(device.connectedTime),
    protocol: device.protocol || undefined,
    inbox_count: device.inboxCount,
  }
}
