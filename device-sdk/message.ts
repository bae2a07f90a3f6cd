import type { MessageFrame, SignatureFrame } from '../gen/push/v1/device.ts'

/** A message as the app's handler gets it. Times are microseconds since the Unix epoch by the server's clock. */
export interface DeviceMessage {
  /** The plane's id of the message; the handler sees each id once. */
  readonly id: string
  /** `USER`, `DIAGNOSTIC` or `RECOVERY`; later servers may send more. */
  readonly class: string
  /** Command or event name, where the publisher gave one. */
  readonly name: string | undefined
  /** The payload: parsed where the content type is JSON, a string where it is text, else its bytes. Undefined when it is empty. */
  readonly data: unknown
  /** The payload byte for byte, where it travelled so: always when it is signed or not JSON, and with `protocol: 'protobuf'`. */
  readonly bytes: Uint8Array | undefined
  readonly contentType: string
  /** `HIGH`, `NORMAL` or `LOW`. */
  readonly priority: string
  /** Orders the versions under one collapse key; equal times go by id. */
  readonly acceptTime: number
  readonly expireTime: number
  readonly collapseKey: string | undefined
  /** `WRITTEN`, `ACKNOWLEDGED` or `RESULT`: what the publisher waits for. */
  readonly confirm: string
  /** An earlier attempt may have reached this device; then it did not reach a handler of this process. */
  readonly redelivered: boolean
  /** Whom the publisher addressed: `device/<id>` or `account/<id>`. */
  readonly target: string
  /** W3C Trace Context of the publisher. */
  readonly traceparent: string | undefined
  /** The publisher's signature over `bytes` and more; the app verifies it. */
  readonly signature: SignatureFrame | undefined
}

/** Throws with a sentence for the publisher when the payload is not what its content type says. */
export function messageFrom(frame: MessageFrame): DeviceMessage {
  const contentType = frame.content_type ?? 'application/json'
  const bytes = frame.data_bytes ?? (frame.data_base64 === undefined ? undefined : bytesOfBase64(frame.data_base64))
  return {
    id: frame.id,
    class: frame.class,
    name: frame.name,
    data: bytes === undefined ? frame.data : decoded(bytes, contentType),
    bytes,
    contentType,
    priority: frame.priority,
    acceptTime: frame.accept_time,
    expireTime: frame.expire_time,
    collapseKey: frame.collapse_key,
    confirm: frame.confirm,
    redelivered: frame.redelivered ?? false,
    target: frame.target,
    traceparent: frame.traceparent,
    signature: frame.signature,
  }
}

function decoded(bytes: Uint8Array, contentType: string): unknown {
  if (bytes.length === 0) return undefined
  const mediaType = contentType.split(';', 1)[0]?.trim().toLowerCase() ?? ''
  if (mediaType === 'application/json' || mediaType.endsWith('+json')) {
    try {
      return JSON.parse(new TextDecoder().decode(bytes))
    } catch {
      throw new Error('the payload is not JSON')
    }
  }
  return mediaType.startsWith('text/') ? new TextDecoder().decode(bytes) : bytes
}

function bytesOfBase64(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))
}
