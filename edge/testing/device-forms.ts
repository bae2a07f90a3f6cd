import { type ClientRequest, get, type IncomingMessage } from 'node:http'
import { expect } from 'vitest'
import { WebSocket } from 'ws'
import { clientFrameBytes, serverFrameOf } from './frame-forms.ts'

/** Every way in which a device may speak with an edge. */
export const deviceForms = ['WebSocket with JSON', 'WebSocket with Protobuf', 'event stream'] as const
export type DeviceForm = (typeof deviceForms)[number]

/** What rows call the form. */
export const protocolOf: Record<DeviceForm, string> = {
  'WebSocket with JSON': 'push.v1.json',
  'WebSocket with Protobuf': 'push.v1.protobuf',
  'event stream': 'push.v1.sse',
}

/** A device of any form. */
export interface FormDevice {
  /** Frames so far, as the JSON form has them. */
  readonly frames: Record<string, unknown>[]
  /** The close code and its words; 1006 when the edge said none. */
  readonly closed: Promise<{ code: number; reason: string; lastEventId?: string }>
  /** Resolves with the first frame of this type that was not taken before. */
  next(type: string): Promise<Record<string, unknown>>
  /** Sends an answer the way the form does. Resolves when it has left, or with the status where there is one. */
  send(frame: object): Promise<number | undefined>
  /** Stops reading. */
  pause(): void
  resume(): void
  /** Cuts the connection. */
  drop(): void
}

export interface FormOptions {
  readonly query?: string
  readonly autoPong?: boolean
  readonly headers?: Record<string, string>
}

/** Connects to the edge at this `host:port`. */
export function connectForm(form: DeviceForm, address: string, credential: string, options: FormOptions = {}): FormDevice {
  const headers = { authorization: `Bearer ${credential}`, ...options.headers }
  return form === 'event stream' ? streamDevice(address, headers, options) : webSocketDevice(form, address, headers, options)
}

function webSocketDevice(
  form: DeviceForm,
  address: string,
  headers: Record<string, string>,
  { query = '', autoPong = true }: FormOptions,
): FormDevice {
  const webSocket = new WebSocket(`ws://${address}/v1/connect${query}`, [protocolOf[form]], { headers, autoPong })
  const frames: Record<string, unknown>[] = []
  webSocket.on('message', (data, isBinary) => frames.push(serverFrameOf(data as Buffer, isBinary)))
  webSocket.on('error', () => {})
  return {
    frames,
    closed: new Promise((resolve) => webSocket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }))),
    next: nextIn(frames),
    async send(frame) {
      webSocket.send(form === 'WebSocket with JSON' ? JSON.stringify(frame) : clientFrameBytes(frame))
      return undefined
    },
    pause: () => webSocket.pause(),
    resume: () => webSocket.resume(),
    drop: () => webSocket.terminate(),
  }
}

function streamDevice(address: string, headers: Record<string, string>, { query = '' }: FormOptions): FormDevice {
  const frames: Record<string, unknown>[] = []
  let response: IncomingMessage | undefined
  let buffered = ''
  let last: { code: number; reason: string; lastEventId?: string } | undefined
  const request: ClientRequest = get(`http://${address}/v1/events${query}`, { headers, agent: false })
  const closed: FormDevice['closed'] = new Promise((resolve) => {
    const end = () => resolve(last ?? { code: 1006, reason: '' })
    request.on('error', end)
    request.on('response', (answer) => {
      response = answer
      answer.setEncoding('utf8')
      answer.on('data', (text: string) => {
        buffered += text
        for (let at = buffered.indexOf('\n\n'); at >= 0; at = buffered.indexOf('\n\n')) {
          const event = buffered.slice(0, at)
          const data = /^data: (.*)$/m.exec(event)?.[1]
          const id = /^id: (.*)$/m.exec(event)?.[1]
          buffered = buffered.slice(at + 2)
          if (data === undefined) continue
          const frame = JSON.parse(data)
          if (frame.type === 'close')
            last = { code: frame.code, reason: frame.reason, ...(id !== undefined && { lastEventId: id }) }
          else frames.push(frame)
        }
      })
      answer.on('error', () => {})
      answer.on('close', end)
    })
  })
  return {
    frames,
    closed,
    next: nextIn(frames),
    async send(frame) {
      const { status } = await postAnswers(address, frame, headers)
      return status
    },
    pause: () => response?.pause(),
    resume: () => response?.resume(),
    drop: () => request.destroy(),
  }
}

/** Sends a body to `POST /v1/answers`. */
export async function postAnswers(address: string, body: unknown, headers: Record<string, string>) {
  const response = await fetch(`http://${address}/v1/answers`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

function nextIn(frames: Record<string, unknown>[]): FormDevice['next'] {
  const taken = new Set<Record<string, unknown>>()
  return async (type) => {
    const find = () => frames.find((frame) => frame.type === type && !taken.has(frame))
    await expect.poll(() => find() !== undefined, { message: `a ${type} frame`, interval: 5, timeout: 10_000 }).toBe(true)
    const frame = find() ?? {}
    taken.add(frame)
    return frame
  }
}
