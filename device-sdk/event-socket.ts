import { CloseCode } from '../gen/push/v1/device.ts'
import { type AnswerPosts, createAnswerPosts, type Fetch } from './answer-posts.ts'
import type { Clock } from './clock.ts'
import { createEventParser } from './event-parser.ts'
import type { Random } from './random.ts'
import type { Socket } from './socket.ts'

const normalClose = 1000
const abnormalClose = 1006

interface Ending {
  readonly code: number
  readonly reason: string
}

/**
 * An event stream that behaves like a socket: events come as messages, the `close` event and refusals as close codes, and what is sent goes by
 * `POST /v1/answers` beside the stream.
 */
export function openEventSocket(options: {
  readonly url: string
  readonly token: string
  readonly fetch: Fetch
  readonly clock: Clock
  readonly random: Random
}): Socket {
  const { url, fetch } = options
  let { token } = options
  const stream = new AbortController()
  const messageListeners: ((event: { data: unknown }) => void)[] = []
  const closeListeners: ((event: Ending) => void)[] = []
  const apart = {
    onSent: () => {},
    show(next: string) {
      token = next
    },
  }
  let closing = false
  let closed = false

  const posts: AnswerPosts = createAnswerPosts({
    url: new URL('answers', url).href,
    token: () => token,
    fetch,
    clock: options.clock,
    random: options.random,
    events: {
      allSent() {
        apart.onSent()
        // Not within the request that has just ended.
        if (closing) queueMicrotask(() => end({ code: normalClose, reason: '' }))
      },
      rejected: (body) => said(body),
      // A new one may hold: the next attempt asks for it, and hears what the edge thinks of it.
      refused: () => end({ code: CloseCode.CREDENTIAL_EXPIRED, reason: 'answers are refused with this credential' }),
    },
  })

  function end(ending: Ending): void {
    if (closed) return
    closed = true
    posts.stop()
    stream.abort()
    for (const listener of closeListeners) listener(ending)
  }

  function said(data: string): void {
    for (const listener of messageListeners) if (!closed) listener({ data })
  }

  async function read(): Promise<Ending> {
    const response = await fetch(url, {
      headers: { accept: 'text/event-stream', authorization: `Bearer ${token}` },
      cache: 'no-store',
      redirect: 'error',
      signal: stream.signal,
    })
    const isStream = response.headers.get('content-type')?.startsWith('text/event-stream') === true
    if (response.status !== 200 || !isStream || response.body === null) return refusal(response)
    let last: Ending | undefined
    const parser = createEventParser(({ name, data }) => {
      if (name === 'close') last ??= endingIn(data)
      else said(data)
    })
    const decoder = new TextDecoder()
    const reader = response.body.getReader()
    for (;;) {
      const { value, done } = await reader.read()
      if (done) break
      parser.push(decoder.decode(value, { stream: true }))
      // Nothing follows it, even where a proxy keeps the connection.
      if (last !== undefined) break
    }
    return last ?? { code: abnormalClose, reason: 'the stream ended' }
  }

  read()
    .catch((error: unknown): Ending => ({ code: abnormalClose, reason: error instanceof Error ? error.message : String(error) }))
    .then(end)

  return {
    apart,
    send(data) {
      if (closed) throw new Error('the stream has ended')
      posts.add(typeof data === 'string' ? data : new TextDecoder().decode(data))
    },
    close() {
      // The second time it is asked for, it is at once.
      if (closing || posts.failing) end({ code: abnormalClose, reason: '' })
      else if (posts.idle) queueMicrotask(() => end({ code: normalClose, reason: '' }))
      closing = true
    },
    addEventListener(type: 'message' | 'close' | 'error', listener: never) {
      if (type === 'message') messageListeners.push(listener)
      else if (type === 'close') closeListeners.push(listener)
    },
  }
}

/** What a status means, in close codes: the edge's own words where it says any. */
async function refusal(response: Response): Promise<Ending> {
  const { status } = response
  const told = endingIn(await response.text())
  const reason = `HTTP ${status}`
  if (status === 401) return told ?? { code: CloseCode.AUTHENTICATION_FAILED, reason }
  // An edge never says so; whoever stands before it and does wants no more requests.
  if (status === 204) return { code: CloseCode.DISCONNECTED, reason }
  if (status === 429 || status >= 500) return { code: CloseCode.TRY_AGAIN_LATER, reason }
  return { code: abnormalClose, reason: status === 200 ? 'the answer is no event stream' : reason }
}

/** Undefined when the text is no `close` frame. */
function endingIn(text: string): Ending | undefined {
  try {
    const { code, reason } = JSON.parse(text)
    if (!Number.isSafeInteger(code)) return undefined
    return { code, reason: typeof reason === 'string' ? reason : '' }
  } catch {
    return undefined
  }
}
