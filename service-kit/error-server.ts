import type { CallContext, ServerMiddleware } from 'nice-grpc-common'
import { ServerError } from 'nice-grpc-common'
import { isAbortError } from './abort.ts'
import { callerMessage, detailsTrailer, encodeErrorDetails } from './error-details.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { PushError } from './push-error.ts'

/** The error as nice-grpc sends it; its details are put on the call's trailer. */
export function toServerError(error: PushError, trailer: CallContext['trailer']): ServerError {
  trailer.set(detailsTrailer, encodeErrorDetails(error))
  return new ServerError(error.status, callerMessage(error.message))
}

/**
 * Turns whatever a service throws into what its caller may read. To stand outside all that throws. A PushError goes out
 * with its details, its cause to the log; a ServerError as it is; anything else is a defect: the caller reads a fixed
 * sentence, the log the whole. A call that its caller has given up, or whose deadline has passed, is left alone.
 */
export function errorMiddleware(log: Log, metrics: Metrics): ServerMiddleware {
  const failures = metrics.counter('push_grpc_server_failures_total', 'Calls that ended with an error of ours, by reason', [
    'method',
    'reason',
  ])
  return async function* mapErrors(call, context) {
    try {
      return yield* call.next(call.request, context)
    } catch (error) {
      if (isAbortError(error) && context.signal.aborted) throw error
      if (error instanceof ServerError) throw error
      const told = toPushError(error)
      const method = call.method.path
      failures.inc({ method, reason: told.reason })
      if (told.reason === 'INTERNAL') log.error('call failed by a defect', { method, cause: told.cause ?? told })
      else if (told.cause !== undefined) log.warn('call failed', { method, reason: told.reason, cause: told.cause })
      throw toServerError(told, context.trailer)
    }
  }
}

/** What a caller may be told of any error: a PushError as it is, anything else as a defect, whose own words are its cause. */
export function toPushError(cause: unknown): PushError {
  if (cause instanceof PushError) return cause
  return new PushError('INTERNAL', 'the service made a mistake; its log tells more', {}, { cause })
}
