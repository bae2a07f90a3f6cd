import { isUtf8 } from 'node:buffer'
import type { Delivery } from '../gen/push/internal/v1/edge.ts'
import type { SignatureFrame } from '../gen/push/v1/device.ts'
import type { Signature } from '../gen/push/v1/message.ts'
import { ConfirmLevel, MessageClass, Priority } from '../gen/push/v1/message.ts'
import { microsFromTimestamp } from '../service-kit/time.ts'

/** The bytes of a message's frame as they go to the device, or why there can be none. */
export type EncodedMessage = { readonly ok: true; readonly bytes: Buffer } | { readonly ok: false; readonly detail: string }

const classNames = new Map<number, string>([
  [MessageClass.USER, 'USER'],
  [MessageClass.DIAGNOSTIC, 'DIAGNOSTIC'],
  [MessageClass.RECOVERY, 'RECOVERY'],
])
const priorityNames = new Map<number, string>([
  [Priority.HIGH, 'HIGH'],
  [Priority.NORMAL, 'NORMAL'],
  [Priority.LOW, 'LOW'],
])
const confirmNames = new Map<number, string>([
  [ConfirmLevel.WRITTEN, 'WRITTEN'],
  [ConfirmLevel.ACKNOWLEDGED, 'ACKNOWLEDGED'],
  [ConfirmLevel.RESULT, 'RESULT'],
])

/** What a payload is when nothing else is said. */
export const jsonContentType = 'application/json'

/** The words for the delivery's enums, or which of them has none here. */
export function namesOf(
  delivery: Delivery,
): { readonly messageClass: string; readonly priority: string; readonly confirm: string } | { readonly unknown: string } {
  const messageClass = classNames.get(delivery.messageClass)
  const priority = priorityNames.get(delivery.priority)
  const confirm = confirmNames.get(delivery.confirm)
  if (messageClass === undefined) return { unknown: `message class ${delivery.messageClass}` }
  if (priority === undefined) return { unknown: `priority ${delivery.priority}` }
  if (confirm === undefined) return { unknown: `confirm level ${delivery.confirm}` }
  return { messageClass, priority, confirm }
}

/**
 * Forms the JSON frame. A JSON payload goes in byte for byte, as its publisher spelled it: read and written again it would lose
 * the digits of big numbers. `limitBytes` bounds the whole frame. Never throws.
 */
export function encodeMessageFrame(delivery: Delivery, limitBytes: number): EncodedMessage {
  const { payload } = delivery
  // Before anything is copied: a frame is never smaller than its payload.
  if (payload.length > limitBytes) return tooLarge(payload.length, limitBytes)
  const names = namesOf(delivery)
  if ('unknown' in names) return unformed(names.unknown)
  const { messageClass, priority, confirm } = names
  const signature = delivery.signature === undefined ? '' : signatureText(delivery.signature)
  if (signature === undefined) return unformed('signature')

  const isJson = delivery.contentType === jsonContentType
  // A text frame must be UTF-8 throughout, or the device has to drop the connection: other bytes travel as base64.
  const spliced = isJson && delivery.signature === undefined && payload.length > 0 && isUtf8(payload)
  const head = `{"type":"message","id":${quoted(delivery.messageId)},"class":"${messageClass}"${field('name', delivery.name)}`
  const data = spliced || payload.length === 0 ? '' : `,"data_base64":"${payload.toString('base64')}"`
  const tail =
    `${data}${isJson ? '' : field('content_type', delivery.contentType)},"priority":"${priority}"` +
    `,"accept_time":${delivery.acceptTime},"expire_time":${delivery.expireTime}${field('collapse_key', delivery.collapseKey)}` +
    `,"confirm":"${confirm}"${delivery.redelivered ? ',"redelivered":true' : ''},"target":${quoted(delivery.target)}` +
    `${field('traceparent', delivery.traceparent)}${signature}}`
  const bytes = spliced ? Buffer.concat([Buffer.from(`${head},"data":`), payload, Buffer.from(tail)]) : Buffer.from(head + tail)
  return bytes.length > limitBytes ? tooLarge(bytes.length, limitBytes) : { ok: true, bytes }
}

/** A frame that passes the limit. */
export function tooLarge(bytes: number, limitBytes: number): EncodedMessage {
  return { ok: false, detail: `the frame would have ${bytes} bytes; a connection takes ${limitBytes}` }
}

/** A delivery with something that no device could be told. */
export function unformed(what: string): EncodedMessage {
  return { ok: false, detail: `no frame can be formed: ${what} is not known here` }
}

function quoted(text: string): string {
  return JSON.stringify(text)
}

/** Nothing for an empty text: unset. */
function field(name: string, text: string): string {
  return text === '' ? '' : `,"${name}":${quoted(text)}`
}

function signatureText(signature: Signature): string | undefined {
  const frame = signatureFrameOf(signature)
  return frame === undefined ? undefined : `,"signature":${JSON.stringify(frame)}`
}

/** Undefined when the device could not judge it. */
export function signatureFrameOf({ keyId, nonce, notAfter, value }: Signature): SignatureFrame | undefined {
  if (notAfter === undefined) return undefined
  try {
    return {
      key_id: keyId,
      nonce: nonce.toString('base64'),
      not_after: microsFromTimestamp(notAfter),
      value: value.toString('base64'),
    }
  } catch {
    return undefined // a time out of every range
  }
}
