import type { ServerMiddleware } from 'nice-grpc-common'
import { isAbortError } from './abort.ts'
import { PushError } from './push-error.ts'

/** What every call's context offers besides nice-grpc's own. */
export interface DrainContext {
  /**
   * Says that this call would go on for ever: when the server drains, its signal aborts and the caller gets DRAINING. To
   * be called at the start of watches and other streams that are safe to cut. (nice-grpc's health service calls it so.)
   */
  abortOnTerminate(): void
}

/** Lets calls end themselves when the server starts to drain. */
export function drainMiddleware(draining: AbortSignal): ServerMiddleware<DrainContext> {
  return async function* endWhenDraining(call, context) {
    const ending = new AbortController()
    const end = () => ending.abort(draining.reason)
    const signal = AbortSignal.any([context.signal, ending.signal])
    try {
      return yield* call.next(call.request, {
        ...context,
        signal,
        abortOnTerminate() {
          if (draining.aborted) end()
          else draining.addEventListener('abort', end, { once: true })
        },
      })
    } catch (error) {
      if (!isAbortError(error) || !ending.signal.aborted || context.signal.aborted) throw error
      throw new PushError('DRAINING', 'this process is shutting down; call another one')
    } finally {
      draining.removeEventListener('abort', end)
    }
  }
}
