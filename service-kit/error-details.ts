import type { Any } from '../gen/google/protobuf/any.ts'
import { BadRequest, ErrorInfo, RetryInfo } from '../gen/google/rpc/error_details.ts'
import { Status as RpcStatus } from '../gen/google/rpc/status.ts'
import type { FieldViolation, PushError } from './push-error.ts'
import { durationFromMs, msFromDuration } from './time.ts'

/** The trailer that carries a serialised `google.rpc.Status`, as gRPC libraries of all languages expect it. */
export const detailsTrailer = 'grpc-status-details-bin'

/** `ErrorInfo.domain` of every reason of ours. */
export const errorDomain = 'push'

/** Longest message in UTF-8 bytes: three times that in the header when every byte has to be escaped. */
export const errorMessageLimitBytes = 512

/** Most bytes of details. Base64 makes 2536 of them: with the longest message they stay below 4 KB on the wire. */
export const errorDetailsLimitBytes = 1900

/** What the trailer says of a failed call. */
export interface ErrorDetails {
  /** As the server gave it; may be one that this version does not know. Undefined when there is no ErrorInfo of ours. */
  readonly reason: string | undefined
  readonly metadata: Readonly<Record<string, string>>
  readonly violations: readonly FieldViolation[]
  readonly retryAfterMs: number | undefined
}

/** The message as callers get it: cut, with an ellipsis, where it is too long. */
export function callerMessage(message: string): string {
  const bytes = Buffer.from(message, 'utf8')
  if (bytes.length <= errorMessageLimitBytes) return message
  let end = errorMessageLimitBytes - Buffer.byteLength('…')
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end-- // not in the middle of a character
  return `${bytes.toString('utf8', 0, end)}…`
}

/** The trailer's bytes. Reason and retry time always fit; violations, then metadata, are left out from the end where not. */
export function encodeErrorDetails(error: PushError): Uint8Array {
  const metadata = Object.entries(error.metadata)
  const violations = [...error.violations]
  for (;;) {
    const bytes = encodeStatus(error, Object.fromEntries(metadata), violations)
    if (bytes.length <= errorDetailsLimitBytes) return bytes
    if (violations.length > 0) violations.pop()
    else if (metadata.length > 0) metadata.pop()
    else return bytes
  }
}

/** Reads the trailer. Undefined when it does not hold a status; details of other domains are skipped. */
export function decodeErrorDetails(bytes: Uint8Array): ErrorDetails | undefined {
  try {
    let reason: string | undefined
    let metadata: Readonly<Record<string, string>> = {}
    let violations: readonly FieldViolation[] = []
    let retryAfterMs: number | undefined
    for (const detail of RpcStatus.decode(bytes).details) {
      if (detail.typeUrl === typeUrl('ErrorInfo')) {
        const info = ErrorInfo.decode(detail.value)
        if (info.domain === errorDomain) ({ reason, metadata } = info)
      } else if (detail.typeUrl === typeUrl('BadRequest')) {
        violations = BadRequest.decode(detail.value).fieldViolations.map(({ field, description }) => ({ field, description }))
      } else if (detail.typeUrl === typeUrl('RetryInfo')) {
        const { retryDelay } = RetryInfo.decode(detail.value)
        if (retryDelay !== undefined) retryAfterMs = msFromDuration(retryDelay)
      }
    }
    return { reason, metadata, violations, retryAfterMs }
  } catch {
    return undefined // another server's trailer, or a broken one: the status alone has to do
  }
}

function encodeStatus(error: PushError, metadata: Record<string, string>, violations: FieldViolation[]): Uint8Array {
  const details: Any[] = [
    {
      typeUrl: typeUrl('ErrorInfo'),
      value: Buffer.from(ErrorInfo.encode({ reason: error.reason, domain: errorDomain, metadata }).finish()),
    },
  ]
  if (violations.length > 0) {
    const fieldViolations = violations.map(({ field, description }) => ({ field, description }))
    details.push({ typeUrl: typeUrl('BadRequest'), value: Buffer.from(BadRequest.encode({ fieldViolations }).finish()) })
  }
  if (error.retryAfterMs !== undefined) {
    const retryDelay = durationFromMs(error.retryAfterMs)
    details.push({ typeUrl: typeUrl('RetryInfo'), value: Buffer.from(RetryInfo.encode({ retryDelay }).finish()) })
  }
  return RpcStatus.encode({ code: error.status, message: callerMessage(error.message), details }).finish()
}

function typeUrl(name: string): string {
  return `type.googleapis.com/google.rpc.${name}`
}
