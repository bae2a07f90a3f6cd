import { once } from 'node:events'
import { WebSocket } from 'ws'

/** A device that acknowledges what it reads. */
export interface BenchDevice {
  readonly deviceId: string
  readonly sessionId: string
  /** Reads nothing from its socket and answers nothing any more. */
  stall(): void
  /** Reads again, and acknowledges what it had read and not answered. */
  resume(): void
  close(): void
}

const ackIdsMax = 100

/** Connects, and resolves when the device has its session. `onMessage` hears the id of each message that comes. */
export async function connectBenchDevice(
  address: string,
  deviceId: string,
  onMessage: (messageId: string) => void,
): Promise<BenchDevice> {
  const headers = { authorization: `Bearer dev:${deviceId}` }
  const webSocket = new WebSocket(`ws://${address}/v1/connect`, ['push.v1.json'], { headers, perMessageDeflate: false })
  const [first] = await Promise.race([once(webSocket, 'message'), once(webSocket, 'close')])
  const welcome = JSON.parse(String(first))
  if (welcome.type !== 'welcome') throw new Error(`${deviceId} was not welcomed, but told ${first}`)
  const unanswered: string[] = []
  let stalled = false
  const acknowledge = (ids: string[]) => webSocket.send(JSON.stringify({ type: 'ack', ids }))
  // Without a listener an error would end the bench; what it costs shows as messages that are lost.
  webSocket.on('error', () => {})
  webSocket.on('message', (data) => {
    const frame = JSON.parse(String(data))
    if (frame.type !== 'message') return
    onMessage(frame.id)
    // What had left the socket before it was paused still comes.
    if (stalled) unanswered.push(frame.id)
    else acknowledge([frame.id])
  })
  return {
    deviceId,
    sessionId: String(welcome.session_id),
    stall() {
      stalled = true
      webSocket.pause()
    },
    resume() {
      stalled = false
      while (unanswered.length > 0) acknowledge(unanswered.splice(0, ackIdsMax))
      webSocket.resume()
    },
    close: () => webSocket.terminate(),
  }
}
