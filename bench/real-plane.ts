import process from 'node:process'
import { connectDevice, type Device, type Handler } from '../device-sdk/index.ts'
import { type Plane, startPlane } from '../system-tests/plane/plane.ts'
import { openSharedServers, type SharedServers } from '../system-tests/servers/shared-servers.ts'

/** A plane whose parts are processes of their own, on a real Kafka and Cassandra. */
export interface RealPlane {
  readonly plane: Plane
  readonly servers: SharedServers
  /** Connects a device, and waits until it has a session. */
  connect(deviceId: string, onMessage: Handler): Promise<Device>
  close(): Promise<void>
}

/** Starts one registry, one router and one edge, on the servers that the environment names or on new ones. */
export async function startRealPlane(): Promise<RealPlane> {
  const servers = await openSharedServers({ kafka: 1, cassandra: 1, env: process.env, say: (line) => console.error(line) })
  const plane = await startPlane({
    ...servers,
    registryClocksAheadMs: [0],
    routerCount: 1,
    edgeCount: 1,
  }).catch(async (error: unknown) => {
    await servers.close()
    throw error
  })
  const devices: Device[] = []
  return {
    plane,
    servers,
    async connect(deviceId, onMessage) {
      const [edge] = plane.edges
      const device = connectDevice({
        url: `ws://${edge?.fact('device_address')}/v1/connect`,
        token: `dev:${deviceId}`,
        onMessage,
      })
      devices.push(device)
      await new Promise<void>((resolve) => device.on('welcome', () => resolve()))
      return device
    },
    async close() {
      await Promise.all(devices.map((device) => device.close()))
      await plane.close()
      await servers.close()
    },
  }
}
