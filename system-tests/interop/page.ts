import { connectDevice, type Device, type DeviceOptions } from '../../device-sdk/index.ts'

// What runs in the browser: does what the test asks for, and tells what happens.

/** What the page tells: the answer to a call, or something that has happened to a device. */
export type PageWord =
  | { readonly call: number; readonly value: unknown }
  | { readonly call: number; readonly problem: string }
  | { readonly device: string; readonly event: string; readonly facts: unknown }

/** Serves the test's calls, by a WebSocket to the server that the page came from. */
export function attend(host: string): void {
  const control = new WebSocket(`ws://${host}/control`)
  const tell = (word: PageWord) => control.send(JSON.stringify(word))
  const actions = actionsOf((device, event, facts) => tell({ device, event, facts }))
  control.onmessage = async ({ data }) => {
    const { call, action, args } = JSON.parse(String(data))
    try {
      tell({ call, value: await actions[action as keyof typeof actions](...(args as [never, never, never])) })
    } catch (error) {
      tell({ call, problem: String(error) })
    }
  }
}

function actionsOf(tell: (device: string, event: string, facts: unknown) => void) {
  const devices = new Map<string, Device>()
  return {
    /** Starts a device of the SDK, and tells what happens to it. */
    connect(name: string, options: Omit<DeviceOptions, 'onMessage'>): void {
      const device = connectDevice({
        ...options,
        onMessage({ id, data, contentType }) {
          tell(name, 'handled', { id, contentType, data: data instanceof Uint8Array ? [...data] : data })
          return { handled: id }
        },
      })
      devices.set(name, device)
      for (const event of ['welcome', 'disconnected', 'stopped', 'problem'] as const) {
        device.on(event, (facts) => tell(name, event, facts))
      }
    },
    async close(name: string): Promise<void> {
      await devices.get(name)?.close({ graceMs: 0 })
    },
    /** Opens the browser's own WebSocket; resolves when it has ended. */
    webSocket: (url: string, protocols: string[]) =>
      new Promise((resolve) => {
        const frames: unknown[] = []
        const socket = new WebSocket(url, protocols)
        socket.onmessage = ({ data }) => void frames.push(JSON.parse(String(data)))
        socket.onclose = ({ code, reason }) => resolve({ frames, code, reason })
      }),
    /** Opens the browser's own EventSource; resolves when its connection has ended, with what the browser means to do next. */
    eventSource: (url: string) =>
      new Promise((resolve) => {
        const events: string[] = []
        const source = new EventSource(url)
        for (const name of ['goaway', 'problem', 'close']) source.addEventListener(name, () => void events.push(name))
        source.onerror = () => {
          resolve({ events, next: source.readyState === EventSource.CLOSED ? 'gives up' : 'comes again' })
          source.close()
        }
      }),
    /** A request with a credential; `blocked` when the browser does not let the page see the answer. */
    async request(url: string, method: string, token: string) {
      try {
        const response = await fetch(url, { method, headers: { authorization: `Bearer ${token}` } })
        return { status: response.status, retryAfter: response.headers.get('retry-after'), text: await response.text() }
      } catch {
        return 'blocked'
      }
    },
  }
}

/** What a test may ask for. */
export type PageActions = ReturnType<typeof actionsOf>
