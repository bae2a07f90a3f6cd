import type { Fetch } from '../answer-posts.ts'
import { settled } from './steered-clock.ts'

/** One request that a device has made; a test says what comes of it. */
export interface ScriptedRequest {
  readonly url: string
  readonly method: string
  readonly headers: Record<string, string>
  /** Frames in the body of a POST. */
  readonly frames: Record<string, unknown>[]
  readonly aborted: boolean
  answer(status: number, body?: string, headers?: Record<string, string>): Promise<void>
  fail(): Promise<void>
  /** Answers with an event stream, and returns a hand to write it. */
  stream(): Promise<{ say(text: string): Promise<void>; end(): Promise<void> }>
}

/** A server without a network. */
export function scriptedFetch() {
  const requests: ScriptedRequest[] = []
  const fetch: Fetch = (url, init) =>
    new Promise((resolve, reject) => {
      const aborted = () => init.signal?.aborted === true
      let body: ReadableStreamDefaultController<Uint8Array> | undefined
      const abort = () => {
        const error = new Error('aborted')
        reject(error)
        body?.error(error)
      }
      init.signal?.addEventListener('abort', abort, { once: true })
      requests.push({
        url,
        method: init.method ?? 'GET',
        headers: init.headers as Record<string, string>,
        frames: init.body === undefined ? [] : JSON.parse(String(init.body)),
        get aborted() {
          return aborted()
        },
        async answer(status, text = '', headers = {}) {
          resolve(new Response(status === 204 ? null : text, { status, headers }))
          await settled()
        },
        async fail() {
          reject(new TypeError('fetch failed'))
          await settled()
        },
        async stream() {
          const readable = new ReadableStream<Uint8Array>({
            start(controller) {
              body = controller
            },
          })
          resolve(new Response(readable, { status: 200, headers: { 'content-type': 'text/event-stream; charset=utf-8' } }))
          await settled()
          return {
            async say(text) {
              body?.enqueue(new TextEncoder().encode(text))
              await settled()
            },
            async end() {
              body?.close()
              await settled()
            },
          }
        },
      })
    })
  const of = (method: string) => requests.filter((request) => request.method === method)
  return {
    fetch,
    requests,
    streams: () => of('GET'),
    posts: () => of('POST'),
    /** The newest request of this method; waits until there are `count`. */
    async nth(method: string, count: number): Promise<ScriptedRequest> {
      for (let turn = 0; turn < 50 && of(method).length < count; turn++) await settled()
      const request = of(method)[count - 1]
      if (request === undefined) throw new Error(`the device has made ${of(method).length} ${method} requests, not ${count}`)
      return request
    },
  }
}

/** A frame as the edge sends it on an event stream. */
export function eventOf(frame: { type: string }): string {
  return `event: ${frame.type === 'error' ? 'problem' : frame.type}\ndata: ${JSON.stringify(frame)}\n\n`
}
