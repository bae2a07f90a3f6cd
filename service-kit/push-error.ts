import { Status } from 'nice-grpc-common'
import type { ErrorReason } from '../gen/push/v1/errors.ts'

/** Why a call fails, by the names of `push.v1.ErrorReason`. */
export type Reason = Exclude<keyof typeof ErrorReason, 'UNSPECIFIED'>

/** The gRPC status of each reason. The only such table. */
export const statusByReason = {
  INVALID_MESSAGE: Status.INVALID_ARGUMENT,
  PAYLOAD_TOO_LARGE: Status.INVALID_ARGUMENT,
  TTL_OUT_OF_RANGE: Status.INVALID_ARGUMENT,
  TARGET_MISSING: Status.INVALID_ARGUMENT,
  INVALID_REQUEST: Status.INVALID_ARGUMENT,
  UNAUTHENTICATED: Status.UNAUTHENTICATED,
  PERMISSION_MISSING: Status.PERMISSION_DENIED,
  CLASS_FORBIDDEN: Status.PERMISSION_DENIED,
  MESSAGE_UNKNOWN: Status.NOT_FOUND,
  DEVICE_UNKNOWN: Status.NOT_FOUND,
  EDGE_UNKNOWN: Status.NOT_FOUND,
  DEAD_LETTER_UNKNOWN: Status.NOT_FOUND,
  RATE_EXCEEDED: Status.RESOURCE_EXHAUSTED,
  BACKLOG_FULL: Status.RESOURCE_EXHAUSTED,
  TOO_MANY_TARGETS: Status.RESOURCE_EXHAUSTED,
  DRAINING: Status.UNAVAILABLE, // another process of the kind takes the call
  QUEUE_UNAVAILABLE: Status.UNAVAILABLE,
  REGISTRY_UNAVAILABLE: Status.UNAVAILABLE,
  KEYS_UNAVAILABLE: Status.UNAVAILABLE,
  EDGE_UNREACHABLE: Status.UNAVAILABLE,
  AUDIT_UNAVAILABLE: Status.UNAVAILABLE,
  EDGE_RESTARTED: Status.FAILED_PRECONDITION, // look the device up again, then retry
  DRAIN_FINAL: Status.FAILED_PRECONDITION,
  NOT_IMPLEMENTED: Status.UNIMPLEMENTED,
  INTERNAL: Status.INTERNAL,
  DEADLINE_PASSED: Status.DEADLINE_EXCEEDED,
} as const satisfies Record<Reason, Status>

/** What is wrong with one field of a request: `message.ttl`, `must be at most 30 days`. */
export interface FieldViolation {
  readonly field: string
  readonly description: string
}

/** What an error may carry besides its reason and message. */
export interface PushErrorOptions {
  /** Where it came from. For the log only: callers never see it. */
  readonly cause?: unknown
  /** The fields that are wrong. Callers get them as `google.rpc.BadRequest`. */
  readonly violations?: readonly FieldViolation[]
  /** When to come back, in milliseconds. Callers get it as `google.rpc.RetryInfo`. */
  readonly retryAfterMs?: number
}

/**
 * An error that callers are told: what is wrong, with which thing, what to do next. Its reason decides the status. The
 * metadata names the things in snake_case and must be fit for the caller's eyes.
 */
export class PushError extends Error {
  override readonly name = 'PushError'
  readonly reason: Reason
  readonly status: Status
  readonly metadata: Readonly<Record<string, string>>
  readonly violations: readonly FieldViolation[]
  readonly retryAfterMs: number | undefined

  constructor(reason: Reason, message: string, metadata: Readonly<Record<string, string>> = {}, options: PushErrorOptions = {}) {
    super(message, options.cause === undefined ? {} : { cause: options.cause })
    this.reason = reason
    this.status = statusByReason[reason]
    this.metadata = metadata
    this.violations = options.violations ?? []
    this.retryAfterMs = options.retryAfterMs
  }
}

/** INVALID_REQUEST for one field, named as in the contract: the description follows its name, as `must be …`. */
export function invalidField(field: string, description: string): PushError {
  return new PushError('INVALID_REQUEST', `${field} ${description}`, {}, { violations: [{ field, description }] })
}
