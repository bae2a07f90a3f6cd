import type {
  AckFrame,
  CloseFrame,
  CredentialAcceptedFrame,
  CredentialFrame,
  ErrorFrame,
  GoawayFrame,
  NackFrame,
  PingFrame,
  PongFrame,
  ResultFrame,
  WelcomeFrame,
} from '../gen/push/v1/device.ts'

/** A frame to the device; in the JSON form this is the object on the wire. Messages have a file of their own: message-frame.ts. */
export type ControlFrame =
  | ({ type: 'welcome' } & WelcomeFrame)
  | ({ type: 'goaway' } & GoawayFrame)
  | ({ type: 'error' } & ErrorFrame)
  | ({ type: 'ping' } & PingFrame)
  | ({ type: 'pong' } & PongFrame)
  | ({ type: 'close' } & CloseFrame)
  | ({ type: 'credential_accepted' } & CredentialAcceptedFrame)

/** A frame from the device; in the JSON form this is the object on the wire. */
export type ClientFrame =
  | ({ type: 'ack' } & AckFrame)
  | ({ type: 'result' } & ResultFrame)
  | ({ type: 'nack' } & NackFrame)
  | ({ type: 'ping' } & PingFrame)
  | ({ type: 'pong' } & PongFrame)
  | ({ type: 'credential' } & CredentialFrame)

/** What a text from the device comes to. The message is for the client's developer and repeats nothing long. */
export type DecodedFrame =
  | { readonly ok: true; readonly frame: ClientFrame }
  | { readonly ok: false; readonly reason: 'UNKNOWN_TYPE' | 'INVALID_FRAME'; readonly message: string }

/** Most ids in one ack. */
export const ackIdsMax = 100
/** Longest id, in UTF-16 units like all lengths below. */
export const idLengthMax = 128
/** Longest `reason` of a nack and `message` of a result. */
export const wordsLengthMax = 1024
/** Longest `data` of a ping or pong. */
export const pingDataLengthMax = 64
/** Longest `token` of a credential: no header may be longer either. */
export const tokenLengthMax = 8_192
/** Largest `data` of a result, in bytes of JSON. */
export const resultDataLimitBytes = 48 * 1024

/** The text of one frame to the device. */
export function encodeControlFrame(frame: ControlFrame): string {
  return JSON.stringify(frame)
}

/** Reads one frame from the device. Fields that are not known are left out, null counts as absent. Never throws. */
export function decodeClientFrame(text: string): DecodedFrame {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return invalidFrame('a frame is a JSON object; this is not JSON')
  }
  if (!isObject(value)) return invalidFrame('a frame is a JSON object')
  const { type } = value
  if (typeof type !== 'string') return invalidFrame('type must be a string')
  return readClientFrame(type, value)
}

/** Checks the fields of a frame that has been taken apart. What is not known is left out; a result's data is looked for in `data`. */
export function readClientFrame(type: string, fields: Fields): DecodedFrame {
  switch (type) {
    case 'ack':
      return decodeAck(fields)
    case 'result':
      return decodeResult(fields)
    case 'nack':
      return decodeNack(fields)
    case 'ping':
    case 'pong':
      return decodePing(type, fields)
    case 'credential':
      return decodeCredential(fields)
    default:
      return { ok: false, reason: 'UNKNOWN_TYPE', message: `type ${JSON.stringify(type.slice(0, 64))} is not known here` }
  }
}

type Fields = Record<string, unknown>

function decodeAck({ ids }: Fields): DecodedFrame {
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > ackIdsMax || !ids.every(isId)) {
    return invalidFrame(`ack: ids must be 1 to ${ackIdsMax} ids of 1 to ${idLengthMax} characters`)
  }
  return { ok: true, frame: { type: 'ack', ids } }
}

function decodeResult({ id, status, data, message }: Fields): DecodedFrame {
  if (!isId(id)) return invalidFrame(`result: id must be 1 to ${idLengthMax} characters`)
  if (status !== 'ok' && status !== 'failed') return invalidFrame('result: status must be "ok" or "failed"')
  if (!isOptionalText(message, wordsLengthMax))
    return invalidFrame(`result: message must be at most ${wordsLengthMax} characters`)
  if (isSet(data) && jsonBytes(data) > resultDataLimitBytes) {
    return invalidFrame(`result: data must be at most ${resultDataLimitBytes} bytes of JSON, not nested too deeply`)
  }
  return { ok: true, frame: { type: 'result', id, status, ...(isSet(data) && { data }), ...(isSet(message) && { message }) } }
}

function decodeNack({ id, reason }: Fields): DecodedFrame {
  if (!isId(id)) return invalidFrame(`nack: id must be 1 to ${idLengthMax} characters`)
  if (!isOptionalText(reason, wordsLengthMax)) return invalidFrame(`nack: reason must be at most ${wordsLengthMax} characters`)
  return { ok: true, frame: { type: 'nack', id, ...(isSet(reason) && { reason }) } }
}

function decodePing(type: 'ping' | 'pong', { data }: Fields): DecodedFrame {
  if (!isOptionalText(data, pingDataLengthMax))
    return invalidFrame(`${type}: data must be at most ${pingDataLengthMax} characters`)
  return { ok: true, frame: { type, ...(isSet(data) && { data }) } }
}

function decodeCredential({ token }: Fields): DecodedFrame {
  if (typeof token !== 'string' || token.length === 0 || token.length > tokenLengthMax) {
    return invalidFrame(`credential: token must be 1 to ${tokenLengthMax} characters`)
  }
  return { ok: true, frame: { type: 'credential', token } }
}

/** Infinity for what is nested deeper than can be written again: reading has no such limit. */
function jsonBytes(data: unknown): number {
  try {
    return Buffer.byteLength(JSON.stringify(data))
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** What is no frame, and why. */
export function invalidFrame(message: string): DecodedFrame {
  return { ok: false, reason: 'INVALID_FRAME', message }
}

function isObject(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isSet<T>(value: T | null | undefined): value is T {
  return value !== undefined && value !== null
}

function isId(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= idLengthMax
}

function isOptionalText(value: unknown, lengthMax: number): value is string | null | undefined {
  return !isSet(value) || (typeof value === 'string' && value.length <= lengthMax)
}
