import { isUtf8 } from 'node:buffer'
import type { Delivery } from '../gen/push/internal/v1/edge.ts'
import { ClientFrame, ServerFrame } from '../gen/push/v1/device.ts'
import type { FrameCodec } from './frame-codec.ts'
import { type DecodedFrame, invalidFrame, readClientFrame } from './frames.ts'
import { type EncodedMessage, jsonContentType, namesOf, signatureFrameOf, tooLarge, unformed } from './message-frame.ts'

/** Every frame is one serialized `ServerFrame` or `ClientFrame`. What is JSON in the other form travels as the bytes of its text. */
export const protobufCodec: FrameCodec = {
  protocol: 'push.v1.protobuf',
  binary: true,
  // The type names the case, and is no field of it.
  encodeControl: (frame) => serialized({ $case: frame.type, value: frame } as ServerFrame['frame']),
  encodeMessage,
  decode: (data) => (typeof data === 'string' ? invalidFrame('frames are binary here; this one is text') : decode(data)),
}

function encodeMessage(delivery: Delivery, limitBytes: number): EncodedMessage {
  const { payload } = delivery
  if (payload.length > limitBytes) return tooLarge(payload.length, limitBytes)
  const names = namesOf(delivery)
  if ('unknown' in names) return unformed(names.unknown)
  const signature = delivery.signature === undefined ? undefined : signatureFrameOf(delivery.signature)
  if (signature === undefined && delivery.signature !== undefined) return unformed('signature')
  const bytes = serialized({
    $case: 'message',
    value: {
      id: delivery.messageId,
      class: names.messageClass,
      name: textOf(delivery.name),
      data_bytes: payload.length === 0 ? undefined : payload,
      content_type: delivery.contentType === jsonContentType ? undefined : textOf(delivery.contentType),
      priority: names.priority,
      accept_time: delivery.acceptTime,
      expire_time: delivery.expireTime,
      collapse_key: textOf(delivery.collapseKey),
      confirm: names.confirm,
      redelivered: delivery.redelivered || undefined,
      target: delivery.target,
      traceparent: textOf(delivery.traceparent),
      signature,
    },
  })
  return bytes.length > limitBytes ? tooLarge(bytes.length, limitBytes) : { ok: true, bytes }
}

function serialized(frame: ServerFrame['frame']): Buffer {
  const bytes = ServerFrame.encode({ frame }).finish()
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

/** Unset for an empty text. */
function textOf(text: string): string | undefined {
  return text === '' ? undefined : text
}

function decode(data: Buffer): DecodedFrame {
  if (data.length === 0) return invalidFrame('a frame is a ClientFrame; this one is empty')
  let frame: ClientFrame['frame']
  try {
    frame = ClientFrame.decode(data).frame
  } catch {
    // The reader's own words tell of offsets and wire types of whatever came; nothing of that helps.
    return invalidFrame('a frame is a ClientFrame; this is none')
  }
  if (frame === undefined) {
    return { ok: false, reason: 'UNKNOWN_TYPE', message: 'the frame holds no case that is known here' }
  }
  const { $case: type, value } = frame
  if (type !== 'result') return readClientFrame(type, { ...value })
  if (value.data !== undefined) return invalidFrame('result: in this form the data goes into data_bytes')
  const { data_bytes: bytes, ...fields } = value
  if (bytes === undefined || bytes.length === 0) return readClientFrame(type, fields)
  const json = jsonOf(bytes)
  if (json === undefined) return invalidFrame('result: data_bytes must be JSON text in UTF-8')
  const read = readClientFrame(type, { ...fields, data: json.value })
  if (!read.ok || read.frame.type !== 'result') return read
  // As the device spelled it: read and written again it would lose the digits of big numbers. A copy, or the whole frame would stay.
  const { data: _, ...rest } = read.frame
  return { ok: true, frame: { ...rest, data_bytes: Buffer.from(bytes) } }
}

function jsonOf(bytes: Uint8Array): { readonly value: unknown } | undefined {
  if (!isUtf8(bytes)) return undefined
  try {
    return { value: JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')) }
  } catch {
    return undefined
  }
}
