import { Status } from 'nice-grpc-common'
import { CloseCode } from '../gen/push/v1/device.ts'
import type { CallFailure, Reason } from '../service-kit/errors.ts'

/** What the process ends with, for scripts. */
export const ExitCode = {
  /** It is done. */
  DONE: 0,
  /** The device refused the message or failed at it. */
  FAILED_ON_DEVICE: 1,
  /** The command or the message is wrong, or asks for what this version does not do. Nothing was sent. */
  USAGE: 2,
  /** Not authenticated, or not permitted. */
  NOT_PERMITTED: 3,
  /** The device is offline; the message is stored until it comes, or dropped where it may not wait. */
  OFFLINE: 4,
  /** The message expired, was dropped for another reason, taken back, or replaced by a newer one. */
  NOT_DELIVERED: 5,
  /** Gave up waiting; the message may still arrive. */
  GAVE_UP: 6,
  /** The message did not come to the same end at all its devices. */
  SOME_FAILED: 7,
  /** The service does not answer, or cannot take the call now. */
  UNAVAILABLE: 8,
  /** Ctrl-C. */
  INTERRUPTED: 130,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

const byReason = {
  INVALID_MESSAGE: ExitCode.USAGE,
  PAYLOAD_TOO_LARGE: ExitCode.USAGE,
  TTL_OUT_OF_RANGE: ExitCode.USAGE,
  TARGET_MISSING: ExitCode.USAGE,
  INVALID_REQUEST: ExitCode.USAGE,
  TOO_MANY_TARGETS: ExitCode.USAGE,
  NOT_IMPLEMENTED: ExitCode.USAGE,
  MESSAGE_UNKNOWN: ExitCode.USAGE,
  EDGE_UNKNOWN: ExitCode.USAGE,
  DEAD_LETTER_UNKNOWN: ExitCode.USAGE,
  DRAIN_FINAL: ExitCode.USAGE,
  UNAUTHENTICATED: ExitCode.NOT_PERMITTED,
  PERMISSION_MISSING: ExitCode.NOT_PERMITTED,
  CLASS_FORBIDDEN: ExitCode.NOT_PERMITTED,
  DEVICE_UNKNOWN: ExitCode.OFFLINE,
  DEADLINE_PASSED: ExitCode.GAVE_UP,
  RATE_EXCEEDED: ExitCode.UNAVAILABLE,
  BACKLOG_FULL: ExitCode.UNAVAILABLE,
  DRAINING: ExitCode.UNAVAILABLE,
  QUEUE_UNAVAILABLE: ExitCode.UNAVAILABLE,
  REGISTRY_UNAVAILABLE: ExitCode.UNAVAILABLE,
  KEYS_UNAVAILABLE: ExitCode.UNAVAILABLE,
  AUDIT_UNAVAILABLE: ExitCode.UNAVAILABLE,
  EDGE_RESTARTED: ExitCode.UNAVAILABLE,
  EDGE_UNREACHABLE: ExitCode.UNAVAILABLE,
  INTERNAL: ExitCode.UNAVAILABLE,
} as const satisfies Record<Reason, ExitCode>

// For failures without a reason of ours: from a proxy, the transport, or a newer service. What is not here is UNAVAILABLE.
const byStatus: Partial<Record<Status, ExitCode>> = {
  [Status.INVALID_ARGUMENT]: ExitCode.USAGE,
  [Status.OUT_OF_RANGE]: ExitCode.USAGE,
  [Status.NOT_FOUND]: ExitCode.USAGE,
  [Status.UNIMPLEMENTED]: ExitCode.USAGE,
  [Status.UNAUTHENTICATED]: ExitCode.NOT_PERMITTED,
  [Status.PERMISSION_DENIED]: ExitCode.NOT_PERMITTED,
  [Status.DEADLINE_EXCEEDED]: ExitCode.GAVE_UP,
}

/** The exit code of a call that failed. */
export function exitCodeOfFailure(failure: CallFailure): ExitCode {
  return (failure.reason && byReason[failure.reason]) ?? byStatus[failure.status] ?? ExitCode.UNAVAILABLE
}

/** The exit code of a device that the server sent away for good. */
export function exitCodeOfClose(closeCode: number): ExitCode {
  return closeCode === CloseCode.AUTHENTICATION_FAILED || closeCode === CloseCode.DISCONNECTED
    ? ExitCode.NOT_PERMITTED
    : ExitCode.UNAVAILABLE
}

/** The table for `--help`. */
export const exitCodesHelp = `
Exit codes:
  0    done
  1    failed on the device
  2    usage: the command or the message is wrong; nothing was sent
  3    not authenticated or permitted
  4    device offline; the message is stored (with --ttl 0: dropped)
  5    expired, dropped, cancelled or replaced
  6    gave up waiting; status and watch go on with the message id
  7    some of many failed
  8    service unavailable
  130  interrupted`
