import type { CallOptions, ClientMiddleware } from 'nice-grpc-common'
import { ClientError, Metadata, Status } from 'nice-grpc-common'
import { isAbortError } from './abort.ts'
import { createBackoff } from './backoff.ts'
import type { Clock } from './clock.ts'
import { CallError, callErrorOf } from './error-client.ts'
import type { Metrics } from './metrics.ts'
import type { Random } from './random.ts'

/** How long a call may take and how often it is tried; options of every call that `connectGrpc`'s clients make. */
export interface CallBounds {
  /**
   * Milliseconds for the call with all its retries; it then fails as DEADLINE_EXCEEDED. Up to 20 days. Unset: no limit,
   * which is for streams.
   */
  readonly deadlineMs?: number
  /** How often a unary call that failed as UNAVAILABLE is tried again, after a jittered wait. Default 0. */
  readonly retries?: number
}

/** How much later than the server the client itself gives up, in milliseconds. */
export const localDeadlineSlackMs = 250

const deadlineMaxMs = 20 * 24 * 3_600_000

/** What the middleware is made with. */
export interface CallBoundsOptions {
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  /** The first wait before a retry is below this, … */
  readonly retryBaseMs: number
  /** … every one below this. */
  readonly retryCapMs: number
}

/**
 * Puts deadlines on the wire, where the server ends the call with an answer. Cancelling from here resets an HTTP/2 stream,
 * and after about a thousand of those the server closes the connection with everybody's calls on it: so our own timer
 * is later than the server's, and a caller that gives up a unary call with a deadline stops waiting without a reset.
 */
export function callBoundsMiddleware(bounds: CallBoundsOptions): ClientMiddleware<CallBounds> {
  const { clock, random, metrics, retryBaseMs, retryCapMs } = bounds
  const retriesTotal = metrics.counter('push_grpc_client_retries_total', 'Attempts after the first', ['method'])
  const givenUpTotal = metrics.counter('push_grpc_client_unanswered_total', 'Calls without any answer by their deadline', [
    'method',
  ])

  return async function* boundCall(call, options) {
    const { deadlineMs, retries = 0, ...rest } = options
    const path = call.method.path
    checkDeadline(deadlineMs)
    const endsAt = deadlineMs === undefined ? undefined : clock.monotonic() + deadlineMs
    const remainingMs = () => (endsAt === undefined ? undefined : endsAt - clock.monotonic())

    if (call.requestStream || call.responseStream) {
      const attempt = startAttempt(clock, rest, remainingMs())
      try {
        return yield* call.next(call.request, attempt.options)
      } catch (error) {
        throw attempt.explained(error, path, givenUpTotal)
      } finally {
        attempt.end()
      }
    }

    const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random })
    for (let tried = 0; ; tried++) {
      try {
        rest.signal?.throwIfAborted()
        const attempt = startAttempt(clock, rest, remainingMs(), true)
        const answer = (async () => {
          try {
            return await lastOf(call.next(call.request, attempt.options))
          } catch (error) {
            throw attempt.explained(error, path, givenUpTotal)
          } finally {
            attempt.end()
          }
        })()
        return endsAt === undefined ? await answer : await unlessAborted(answer, rest.signal)
      } catch (error) {
        if (tried >= retries || !(error instanceof ClientError) || error.code !== Status.UNAVAILABLE) throw error
        const waitMs = (callErrorOf(error).retryAfterMs ?? 0) + backoff.next()
        if (waitMs >= (remainingMs() ?? Number.POSITIVE_INFINITY)) throw error
        await clock.sleep(waitMs, rest.signal)
        retriesTotal.inc({ method: path })
      }
    }
  }
}

/** One attempt with its own timer. `detached`: the caller's signal is not passed on, it only ends the waiting. */
function startAttempt(clock: Clock, options: CallOptions, remainingMs: number | undefined, detached = false) {
  if (remainingMs === undefined) return { options, explained: (error: unknown) => error, end: () => {} }
  const giveUp = new AbortController()
  const timer = clock.after(remainingMs + localDeadlineSlackMs, () => giveUp.abort())
  const metadata = Metadata(options.metadata).set('grpc-timeout', wireTimeout(remainingMs))
  const signal = detached || options.signal === undefined ? giveUp.signal : AbortSignal.any([options.signal, giveUp.signal])
  return {
    options: { ...options, metadata, signal },
    explained(error: unknown, path: string, givenUpTotal: { inc(labels: { method: string }): void }): unknown {
      if (!isAbortError(error) || !giveUp.signal.aborted) return error
      givenUpTotal.inc({ method: path })
      return new CallError(path, Status.DEADLINE_EXCEEDED, 'the deadline passed without an answer from the server')
    },
    end: () => timer.cancel(),
  }
}

/** `grpc-timeout` has at most eight digits and a unit; parts of a unit are rounded up, and 0 would be no deadline. */
function wireTimeout(ms: number): string {
  const wholeMs = Math.max(1, Math.ceil(ms))
  return wholeMs <= 99_999_999 ? `${wholeMs}m` : `${Math.ceil(wholeMs / 1000)}S`
}

function checkDeadline(deadlineMs: number | undefined): void {
  if (deadlineMs === undefined || (deadlineMs > 0 && deadlineMs <= deadlineMaxMs)) return
  throw new RangeError(`a deadline of ${deadlineMs} ms is out of range; above 0 and up to ${deadlineMaxMs} are possible`)
}

async function lastOf<Response>(responses: AsyncGenerator<never, Response, undefined>): Promise<Response> {
  // A unary call yields nothing: the first step is the last.
  const { value } = await responses.next()
  return value
}

function unlessAborted<T>(answer: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return answer
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason)
    signal.addEventListener('abort', stop, { once: true })
    answer.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}
