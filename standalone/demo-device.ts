import { connectDevice, type DeviceMessage } from '../device-sdk/index.ts'

/** A device that is there for the first try. */
export interface DemoDevice {
  /** Resolves when its first session is open; rejects with what stands in the way if the edge refuses it. */
  readonly connected: Promise<void>
  close(): Promise<void>
}

/** Connects a device that prints what it receives, one line a message. */
export function startDemoDevice(url: string, deviceId: string, print: (line: string) => void): DemoDevice {
  const device = connectDevice({
    url,
    token: `dev:${deviceId}`,
    onMessage: (message) => print(`${deviceId} received ${describe(message)}`),
  })
  const connected = new Promise<void>((resolve, reject) => {
    device.on('welcome', () => resolve())
    device.on('stopped', ({ code, reason }) => reject(new Error(`the edge refuses the demo device: ${code} ${reason}`)))
  })
  return { connected, close: () => device.close() }
}

/** Class, name and payload; JSON, so that nothing in a payload can move the cursor of the terminal. */
function describe({ class: messageClass, name, data }: DeviceMessage): string {
  const payload = data instanceof Uint8Array ? `${data.length} bytes` : data === undefined ? '(no payload)' : JSON.stringify(data)
  return [messageClass, name, payload].filter((part) => part !== undefined && part !== '').join(' ')
}
