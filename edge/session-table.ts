import type { DeviceSession } from './device-session.ts'
import { isLower } from './session.ts'

/** All sessions of this edge, by device. The sessions of one device are a chain, newest installed first. */
export class SessionTable {
  readonly #newestByDevice = new Map<string, DeviceSession>()
  #size = 0

  get size(): number {
    return this.#size
  }

  add(session: DeviceSession): void {
    session.nextOfDevice = this.#newestByDevice.get(session.deviceId)
    this.#newestByDevice.set(session.deviceId, session)
    this.#size++
  }

  remove(session: DeviceSession): void {
    const newest = this.#newestByDevice.get(session.deviceId)
    if (newest === session) {
      if (session.nextOfDevice === undefined) this.#newestByDevice.delete(session.deviceId)
      else this.#newestByDevice.set(session.deviceId, session.nextOfDevice)
      this.#size--
      return
    }
    for (let before = newest; before !== undefined; before = before.nextOfDevice) {
      if (before.nextOfDevice !== session) continue
      before.nextOfDevice = session.nextOfDevice
      this.#size--
      return
    }
  }

  find(deviceId: string, sessionId: string): DeviceSession | undefined {
    for (const session of this.ofDevice(deviceId)) if (session.sessionId === sessionId) return session
    return undefined
  }

  /** The device's newest session here that is open and takes deliveries. */
  newestOpen(deviceId: string): DeviceSession | undefined {
    let newest: DeviceSession | undefined
    for (const session of this.ofDevice(deviceId)) {
      if (session.writes && session.accepts && (newest === undefined || isLower(newest.order, session.order))) newest = session
    }
    return newest
  }

  *ofDevice(deviceId: string): Generator<DeviceSession> {
    for (let session = this.#newestByDevice.get(deviceId); session !== undefined; session = session.nextOfDevice) yield session
  }

  *all(): Generator<DeviceSession> {
    for (const deviceId of [...this.#newestByDevice.keys()]) yield* this.ofDevice(deviceId)
  }
}
