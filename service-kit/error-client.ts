import type { CallOptions, ClientMiddleware } from 'nice-grpc-common'
import { ClientError, Status } from 'nice-grpc-common'
import { isAbortError } from './abort.ts'
import type { ErrorDetails } from './error-details.ts'
import { decodeErrorDetails, detailsTrailer } from './error-details.ts'
import type { FieldViolation, Reason } from './push-error.ts'
import { PushError, statusByReason } from './push-error.ts'

/** A failed call with what the server's trailer said. Also a ClientError, with `code` and `details`. */
export class CallError extends ClientError {
  readonly errorDetails: ErrorDetails | undefined

  constructor(path: string, code: Status, message: string, errorDetails?: ErrorDetails) {
    super(path, code, message)
    this.errorDetails = errorDetails
  }
}

/** What a failed call comes down to, whoever made it fail. */
export interface CallFailure {
  readonly status: Status
  /** Undefined when the failure does not come from a service of ours, or has a reason that this version does not know. */
  readonly reason: Reason | undefined
  /** One sentence for people. */
  readonly message: string
  readonly metadata: Readonly<Record<string, string>>
  readonly violations: readonly FieldViolation[]
  readonly retryAfterMs: number | undefined
}

/** Reads any error that a call may end with. An aborted call is CANCELLED; what is no call's error at all is UNKNOWN. */
export function callErrorOf(error: unknown): CallFailure {
  if (error instanceof PushError) {
    const { status, reason, message, metadata, violations, retryAfterMs } = error
    return { status, reason, message, metadata, violations, retryAfterMs }
  }
  if (error instanceof CallError && error.errorDetails !== undefined) {
    const { reason, metadata, violations, retryAfterMs } = error.errorDetails
    return { status: error.code, reason: knownReason(reason), message: error.details, metadata, violations, retryAfterMs }
  }
  const plain = { reason: undefined, metadata: {}, violations: [], retryAfterMs: undefined }
  if (error instanceof ClientError) return { ...plain, status: error.code, message: error.details }
  if (isAbortError(error)) return { ...plain, status: Status.CANCELLED, message: 'the call was given up' }
  return { ...plain, status: Status.UNKNOWN, message: error instanceof Error ? error.message : String(error) }
}

/** Makes calls fail with CallError instead of the bare ClientError, so that `callErrorOf` can tell the reason. */
export const errorDetailsMiddleware: ClientMiddleware = async function* readErrorDetails(call, options) {
  let trailerBytes: Uint8Array | undefined
  const watched: CallOptions = {
    ...options,
    onTrailer(trailer) {
      trailerBytes = trailer.get(detailsTrailer)
      options.onTrailer?.(trailer)
    },
  }
  try {
    return yield* call.next(call.request, watched)
  } catch (error) {
    if (!(error instanceof ClientError) || trailerBytes === undefined) throw error
    throw new CallError(error.path, error.code, error.details, decodeErrorDetails(trailerBytes))
  }
}

function knownReason(reason: string | undefined): Reason | undefined {
  return reason !== undefined && Object.hasOwn(statusByReason, reason) ? (reason as Reason) : undefined
}
