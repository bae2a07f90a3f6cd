import { ConfirmLevel, Message, MessageClass, Priority, ReceiptMode } from '../../gen/push/v1/message.ts'
import { type FieldViolation, PushError, type Reason } from '../../service-kit/errors.ts'
import { PUSH_ID_PATTERN } from '../../service-kit/ids.ts'
import { msFromDuration } from '../../service-kit/time.ts'

/** Largest payload in bytes. */
export const payloadBytesMax = 64 * 1024
/** Time to live of messages that name none, in ms. */
export const ttlDefaultMs = 3_600_000
/** Longest time to live in ms. */
export const ttlMaxMs = 30 * 86_400_000
/** How long a message with time to live 0 lives all the same, in ms: it must get from here to the device. */
export const nowOrNeverMs = 10_000

/** A message that holds, every default filled in. */
export interface CheckedMessage {
  readonly message: Message
  readonly target: NonNullable<Message['target']>
  /** From acceptance to expiry in ms. */
  readonly lifeMs: number
}

const idRule = 'must be 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -'

/**
 * Checks a published message whole and fills in the defaults of the contract. Throws one PushError that names every field that is wrong; its
 * reason is that of the first one.
 */
export function checkMessage(given: Message | undefined): CheckedMessage {
  if (!given) throw invalid('INVALID_MESSAGE', [{ field: 'message', description: 'is required' }])
  const found: { reason: Reason; violation: FieldViolation }[] = []
  const wrong = (reason: Reason, field: string, description: string) =>
    found.push({ reason, violation: { field: `message.${field}`, description } })
  const atMost = (field: string, text: string, length: number) => {
    if (text.length > length) wrong('INVALID_MESSAGE', field, `must be at most ${length} characters`)
  }
  const named = (field: string, text: string) => {
    if (text !== '' && (text.length > 64 || !PUSH_ID_PATTERN.test(text))) {
      wrong('INVALID_MESSAGE', field, 'must be at most 64 characters of A-Z a-z 0-9 . _ : ~ -')
    }
  }

  const { target } = given
  if (!target) wrong('TARGET_MISSING', 'target', 'name a device_id or an account_id')
  else if (!PUSH_ID_PATTERN.test(target.value)) {
    wrong('INVALID_MESSAGE', target.$case === 'deviceId' ? 'device_id' : 'account_id', idRule)
  }
  atMost('idempotency_key', given.idempotencyKey, 128)
  named('name', given.name)
  named('collapse_key', given.collapseKey)
  atMost('content_type', given.contentType, 128)
  if (/[^\x20-\x7e]/.test(given.contentType)) wrong('INVALID_MESSAGE', 'content_type', 'must be printable ASCII')
  atMost('traceparent', given.traceparent, 128)
  if (given.payload.length > payloadBytesMax) {
    wrong('PAYLOAD_TOO_LARGE', 'payload', `has ${given.payload.length} bytes; at most ${payloadBytesMax} are allowed`)
  }
  // JSON is UTF-8 whatever its parameters say (RFC 8259 §8.1): devices get the plain name, and the payload as JSON.
  const contentType = given.contentType === '' || isJson(given.contentType) ? 'application/json' : given.contentType
  if (contentType === 'application/json' && given.payload.length > 0 && given.payload.length <= payloadBytesMax) {
    const problem = jsonProblem(given.payload)
    if (problem) wrong('INVALID_MESSAGE', 'payload', `must be JSON, as content_type says: ${problem}`)
  }
  known('message_class', given.messageClass, MessageClass)
  known('priority', given.priority, Priority)
  known('confirm', given.confirm, ConfirmLevel)
  known('receipts', given.receipts, ReceiptMode)
  const lifeMs = checkTtl()
  checkResultTimeout()
  checkSignature()

  const [first] = found
  if (first)
    throw invalid(
      first.reason,
      found.map(({ violation }) => violation),
    )
  const message = Message.fromPartial({
    ...given,
    contentType,
    messageClass: given.messageClass || MessageClass.USER,
    priority: given.priority || Priority.NORMAL,
    confirm: given.confirm || ConfirmLevel.ACKNOWLEDGED,
    receipts: given.receipts || ReceiptMode.FINAL,
    ttl: given.ttl ?? { seconds: ttlDefaultMs / 1_000, nanos: 0 },
  })
  // Without a target there is a violation.
  if (!target) throw new Error('a message without target was taken')
  return { message, target, lifeMs: lifeMs === 0 ? nowOrNeverMs : lifeMs }

  function known(field: string, value: number, values: Record<string, number>): void {
    if (!Object.values(values).includes(value)) wrong('INVALID_MESSAGE', field, `has no value ${value}`)
  }

  function checkTtl(): number {
    if (!given?.ttl) return ttlDefaultMs
    try {
      const ms = msFromDuration(given.ttl)
      if (ms >= 0 && ms <= ttlMaxMs) return ms
    } catch {
      // not a duration at all: the same answer
    }
    wrong('TTL_OUT_OF_RANGE', 'ttl', 'must be from 0 to 30 days')
    return ttlDefaultMs
  }

  function checkResultTimeout(): void {
    if (!given?.resultTimeout) return
    let ms = -1
    try {
      ms = msFromDuration(given.resultTimeout)
    } catch {
      // not a duration at all: the same answer
    }
    if (ms < 1_000 || ms > 86_400_000) wrong('INVALID_MESSAGE', 'result_timeout', 'must be from 1 second to 24 hours')
  }

  function checkSignature(): void {
    const signature = given?.signature
    if (!signature) return
    if (signature.keyId === '' || signature.keyId.length > 64)
      wrong('INVALID_MESSAGE', 'signature.key_id', 'must be 1 to 64 characters')
    if (signature.nonce.length < 8 || signature.nonce.length > 64)
      wrong('INVALID_MESSAGE', 'signature.nonce', 'must be 8 to 64 bytes')
    if (!signature.notAfter) wrong('INVALID_MESSAGE', 'signature.not_after', 'is required')
    if (signature.value.length === 0 || signature.value.length > 512)
      wrong('INVALID_MESSAGE', 'signature.value', 'must be 1 to 512 bytes')
  }
}

function isJson(contentType: string): boolean {
  return contentType.split(';', 1)[0]?.trim().toLowerCase() === 'application/json'
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function jsonProblem(payload: Uint8Array): string | undefined {
  try {
    JSON.parse(utf8.decode(payload))
    return undefined
  } catch (cause) {
    return cause instanceof SyntaxError ? cause.message.slice(0, 100) : 'it is not UTF-8'
  }
}

function invalid(reason: Reason, violations: FieldViolation[]): PushError {
  const text = violations.map(({ field, description }) => `${field} ${description}`).join('; ')
  return new PushError(reason, text.slice(0, 1_000), {}, { violations })
}
