import type {
  AckFrame,
  CloseFrame,
  CredentialAcceptedFrame,
  CredentialFrame,
  ErrorFrame,
  GoawayFrame,
  MessageFrame,
  NackFrame,
  PingFrame,
  PongFrame,
  ResultFrame,
  WelcomeFrame,
} from '../gen/push/v1/device.ts'

/** A frame from the edge; in the JSON form this is the object on the wire. */
export type ServerFrame =
  | ({ type: 'welcome' } & WelcomeFrame)
  | ({ type: 'message' } & MessageFrame)
  | ({ type: 'goaway' } & GoawayFrame)
  | ({ type: 'error' } & ErrorFrame)
  | ({ type: 'ping' } & PingFrame)
  | ({ type: 'pong' } & PongFrame)
  | ({ type: 'credential_accepted' } & CredentialAcceptedFrame)
  | ({ type: 'close' } & CloseFrame)

/** A frame to the edge; in the JSON form this is the object on the wire. */
export type ClientFrame =
  | ({ type: 'ack' } & AckFrame)
  | ({ type: 'result' } & ResultFrame)
  | ({ type: 'nack' } & NackFrame)
  | ({ type: 'ping' } & PingFrame)
  | ({ type: 'pong' } & PongFrame)
  | ({ type: 'credential' } & CredentialFrame)

/** A frame that was read, or why it could not be. */
export type ParsedFrame =
  | { ok: true; frame: ServerFrame }
  | { ok: false; reason: 'UNKNOWN_TYPE' | 'INVALID_FRAME'; message: string }

/** Reads one frame of the JSON form. Unknown fields are left out, null counts as absent; a frame with a wrong or missing field is no frame. Never throws. */
export function parseServerFrame(text: string): ParsedFrame {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return invalidFrame('not JSON')
  }
  if (!isObject(value)) return invalidFrame('not a JSON object')
  if (typeof value.type !== 'string') return invalidFrame('type must be a string')
  return readServerFrame(value.type, value, 'json')
}

/** Checks the fields of a frame that has been taken apart. Protobuf cannot tell an empty text from none: where one is needed, it is missing. */
export function readServerFrame(type: string, fields: Record<string, unknown>, form: 'json' | 'protobuf'): ParsedFrame {
  const shape = shapes.get(type)
  if (shape === undefined) return { ok: false, reason: 'UNKNOWN_TYPE', message: `unknown type ${type.slice(0, 64)}` }
  const read = readFields(fields, shape, form === 'protobuf')
  if ('problem' in read) return invalidFrame(`${type}: ${read.problem}`)
  // The shape has checked each field that the type names.
  return { ok: true, frame: { type, ...read.fields } as ServerFrame }
}

/** The text of one frame. */
export function encodeFrame(frame: ClientFrame): string {
  return JSON.stringify(frame)
}

type Check = (value: unknown, emptyIsMissing: boolean) => { problem: string } | { value: unknown }
type Shape = Record<string, { check: Check; required: boolean; mayBeEmpty?: boolean }>

/** What is no frame, and why. */
export const invalidFrame = (message: string): ParsedFrame => ({ ok: false, reason: 'INVALID_FRAME', message })

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const ofType =
  (holds: (value: unknown) => boolean, words: string): Check =>
  (value) =>
    holds(value) ? { value } : { problem: `must be ${words}` }

const text = ofType((value) => typeof value === 'string', 'a string')
const wholeNumber = ofType(Number.isSafeInteger, 'a whole number')
const notNegative = ofType((value) => Number.isSafeInteger(value) && Number(value) >= 0, 'a whole number of at least 0')
const flag = ofType((value) => typeof value === 'boolean', 'true or false')
const anything = ofType(() => true, 'a value')
const base64 = ofType(
  (value) => typeof value === 'string' && /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value),
  'base64 with padding',
)
const object =
  (shape: Shape): Check =>
  (value, emptyIsMissing) => {
    if (!isObject(value)) return { problem: 'must be an object' }
    const read = readFields(value, shape, emptyIsMissing)
    return 'problem' in read ? read : { value: read.fields }
  }

const required = (check: Check) => ({ check, required: true })
const words = { check: text, required: true, mayBeEmpty: true }
const optional = (check: Check) => ({ check, required: false })

const signature = object({
  key_id: required(text),
  nonce: required(base64),
  not_after: required(wholeNumber),
  value: required(base64),
})
const limits = object({
  frame_bytes: required(notNegative),
  ack_ids: required(notNegative),
  unanswered_messages: required(notNegative),
})

const shapes = new Map<string, Shape>([
  [
    'welcome',
    {
      session_id: required(text),
      device_id: required(text),
      server_time: required(wholeNumber),
      ping_interval_ms: required(notNegative),
      limits: optional(limits),
      credential_expire_time: optional(wholeNumber),
    },
  ],
  [
    'message',
    {
      id: required(text),
      class: required(text),
      name: optional(text),
      data: optional(anything),
      data_base64: optional(base64),
      content_type: optional(text),
      priority: required(text),
      accept_time: required(wholeNumber),
      expire_time: required(wholeNumber),
      collapse_key: optional(text),
      confirm: required(text),
      redelivered: optional(flag),
      target: required(text),
      traceparent: optional(text),
      signature: optional(signature),
    },
  ],
  ['goaway', { reason: required(text), reconnect_after_ms: required(notNegative), endpoint: optional(text) }],
  ['error', { reason: required(text), message: words }],
  ['ping', { data: optional(text) }],
  ['pong', { data: optional(text) }],
  ['credential_accepted', { expire_time: optional(wholeNumber) }],
  ['close', { code: required(notNegative), reason: words }],
])

function readFields(
  source: Record<string, unknown>,
  shape: Shape,
  emptyIsMissing: boolean,
): { problem: string } | { fields: Record<string, unknown> } {
  const fields: Record<string, unknown> = {}
  for (const [name, { check, required, mayBeEmpty }] of Object.entries(shape)) {
    const value = source[name]
    if (value === undefined || value === null) {
      if (required) return { problem: `${name} is missing` }
      continue
    }
    if (required && value === '' && emptyIsMissing && mayBeEmpty !== true) return { problem: `${name} is missing` }
    const checked = check(value, emptyIsMissing)
    if ('problem' in checked) return { problem: `${name} ${checked.problem}` }
    fields[name] = checked.value
  }
  return { fields }
}
