import { CloseCode } from '../gen/push/v1/device.ts'

/** Every close code that this edge may send: what it is called, whether the device shall come back, what the close frame says. */
export interface CloseKind {
  readonly code: CloseCode
  /** The name in metrics and logs. */
  readonly name: string
  /** For the device: come back by itself (after a back-off or in its slot), or not until something changes. */
  readonly reconnect: boolean
  /** What the close frame says; at most 123 bytes. */
  readonly text: string
}

function kind(code: CloseCode, name: string, text: string): CloseKind {
  return { code, name, reconnect: code < 4500, text }
}

/** The one table. Besides these, ws itself closes with 1002, 1007, 1008 and 1009 where a client breaks the WebSocket protocol. */
export const closeKinds = {
  /** The edge stops at once, without having drained. */
  goingAway: kind(CloseCode.GOING_AWAY, 'going_away', 'the edge goes away'),
  /** A defect of the edge ended the session. */
  internalError: kind(CloseCode.INTERNAL_ERROR, 'internal_error', 'the edge failed'),
  /** Not registered within the deadline, or the edge is full. */
  tryAgainLater: kind(CloseCode.TRY_AGAIN_LATER, 'try_again_later', 'try again later'),
  /** Lifetime over, and the device did not leave in its slot. */
  lifetime: kind(CloseCode.LIFETIME, 'lifetime', 'the session has reached its lifetime'),
  /** The edge drains, and the device did not leave in its slot. */
  drain: kind(CloseCode.DRAIN, 'drain', 'the edge drains'),
  /** Nothing was heard after a ping. */
  noPong: kind(CloseCode.NO_PONG, 'no_pong', 'no pong in time'),
  /** The device did not read, or did not answer, for too long. */
  slowConsumer: kind(CloseCode.SLOW_CONSUMER, 'slow_consumer', 'the device does not keep up with its messages'),
  /** The credential that opened the session has expired. */
  credentialExpired: kind(CloseCode.CREDENTIAL_EXPIRED, 'credential_expired', 'the credential has expired'),
  /** The device has a newer session. */
  superseded: kind(CloseCode.SUPERSEDED, 'superseded', 'the device has a newer session'),
  /** The device has a newer session, and takes part in too many such changes: two devices use one identity in turns. */
  duplicateIdentity: kind(CloseCode.DUPLICATE_IDENTITY, 'duplicate_identity', 'two devices seem to use one identity'),
  /** A subprotocol client's credential does not hold. */
  authenticationFailed: kind(CloseCode.AUTHENTICATION_FAILED, 'authentication_failed', 'the credential does not hold'),
  /** An operator disconnected the device. */
  disconnected: kind(CloseCode.DISCONNECTED, 'disconnected', 'disconnected by an operator'),
  /** Too many frames that are none, or too many at all. */
  protocolViolation: kind(CloseCode.PROTOCOL_VIOLATION, 'protocol_violation', 'the device broke the protocol'),
} as const satisfies Record<string, CloseKind>

/** Names of the codes that ws or the device may end a connection with; every other code counts as `other`. */
const standardNames = new Map<number, string>([
  [1000, 'normal'],
  [1001, 'going_away'],
  [1002, 'protocol_error'],
  [1005, 'no_code'],
  [1006, 'abnormal'],
  [1007, 'invalid_utf8'],
  [1008, 'policy_violation'],
  [1009, 'too_large'],
])

/** The label of a code in metrics: a closed set, whatever devices may send. */
export function closeCodeName(code: number): string {
  return Object.values(closeKinds).find((known) => known.code === code)?.name ?? standardNames.get(code) ?? 'other'
}

/** Most bytes of a close frame's reason: RFC 6455 gives a control frame 125, two of which are the code. */
export const closeReasonLimitBytes = 123

/** The text, cut at a whole character where it is longer than a close frame holds. ws throws on longer ones and leaves the socket open. */
export function closeReason(text: string): string {
  const bytes = Buffer.from(text, 'utf8')
  if (bytes.length <= closeReasonLimitBytes) return text
  let end = closeReasonLimitBytes
  while (end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}
