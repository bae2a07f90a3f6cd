import type { Clock, Timer } from './clock.ts'
import type { Random } from './random.ts'

/** As much of `fetch` as the SDK uses. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

/** What becomes of posted frames. Nothing more comes after `refused`. */
export interface AnswerPostsEvents {
  /** Everything that was given to `add` has arrived. */
  allSent(): void
  /** An edge does not take a frame, and says why; it is left out. */
  rejected(body: string): void
  /** The credential does not hold any more. */
  refused(): void
}

export interface AnswerPostsOptions {
  readonly url: string
  /** The credential to show now. */
  readonly token: () => string
  readonly fetch: Fetch
  readonly clock: Clock
  readonly random: Random
  readonly events: AnswerPostsEvents
}

/** Sends frames by `POST /v1/answers`, several in one request, one request at a time, until an edge has taken them. */
export interface AnswerPosts {
  /** Throws when too many wait already. */
  add(frame: string): void
  /** Nothing waits and no request is under way. */
  readonly idle: boolean
  /** A request has failed, and is to be repeated. */
  readonly failing: boolean
  stop(): void
}

/** Most frames that wait to be sent. */
export const POSTS_WAITING_MAX = 1_024
/** Most frames in one request, and most bytes: an edge takes 100 and 64 KiB. */
const framesMax = 100
const bytesMax = 60_000
const timeoutMs = 10_000
const retryBaseMs = 500
const retryCapMs = 10_000

export function createAnswerPosts(options: AnswerPostsOptions): AnswerPosts {
  // A browser's fetch may not be called as a method of something else.
  const { fetch, clock, random, events } = options
  const stopped = new AbortController()
  const queue: string[] = []
  let posting = false
  let failures = 0
  let retryTimer: Timer | undefined
  /** Frames that were refused together are sent one by one: the good ones among them shall arrive. */
  let alone = 0

  function nextBatch(): string[] {
    let bytes = 2
    let count = 0
    for (const frame of queue) {
      bytes += sizeOf(frame) + 1
      if (count > 0 && (count >= framesMax || bytes > bytesMax || alone > 0)) break
      count++
    }
    return queue.slice(0, count)
  }

  async function work(): Promise<void> {
    posting = true
    while (queue.length > 0 && !stopped.signal.aborted) {
      const batch = nextBatch()
      const outcome = await post(batch)
      if (stopped.signal.aborted) break
      if (outcome === 'refused') {
        stopped.abort()
        events.refused()
        break
      }
      if (typeof outcome === 'object') {
        failures++
        retryTimer = clock.after(outcome.retryMs, () => {
          retryTimer = undefined
          void work()
        })
        break
      }
      failures = 0
      if (outcome === 'rejected' && batch.length > 1) {
        alone = batch.length
        continue
      }
      alone = Math.max(0, alone - batch.length)
      queue.splice(0, batch.length)
      if (queue.length === 0) events.allSent()
    }
    posting = false
  }

  async function post(batch: string[]): Promise<'taken' | 'rejected' | 'refused' | { retryMs: number }> {
    const late = new AbortController()
    const timer = clock.after(timeoutMs, () => late.abort())
    try {
      const response = await fetch(options.url, {
        method: 'POST',
        headers: { authorization: `Bearer ${options.token()}`, 'content-type': 'application/json' },
        body: `[${batch.join(',')}]`,
        redirect: 'error',
        signal: AbortSignal.any([stopped.signal, late.signal]),
      })
      const { status } = response
      const body = await response.text()
      if (status === 200 || status === 204) return 'taken'
      if (status === 401) return 'refused'
      if (status === 408 || status === 429 || status >= 500) return { retryMs: retryMs(response.headers.get('retry-after')) }
      if (batch.length === 1) events.rejected(body)
      return 'rejected'
    } catch {
      return { retryMs: retryMs(null) }
    } finally {
      timer.cancel()
    }
  }

  function retryMs(retryAfter: string | null): number {
    const asked = /^\d{1,6}$/.test(retryAfter ?? '') ? Number(retryAfter) * 1_000 : 0
    const bound = Math.min(retryCapMs, retryBaseMs * 2 ** Math.min(failures, 30))
    return asked + Math.round((0.5 + random.next() / 2) * bound)
  }

  return {
    add(frame) {
      if (queue.length >= POSTS_WAITING_MAX) throw new Error(`${POSTS_WAITING_MAX} answers wait to be sent`)
      queue.push(frame)
      // At the end of the turn, so that what comes together goes together.
      if (posting || retryTimer !== undefined || stopped.signal.aborted) return
      posting = true
      queueMicrotask(() => void work())
    },
    get idle() {
      return queue.length === 0 && !posting
    },
    get failing() {
      return failures > 0
    },
    stop() {
      stopped.abort()
      retryTimer?.cancel()
      retryTimer = undefined
    },
  }
}

function sizeOf(text: string): number {
  return new TextEncoder().encode(text).length
}
