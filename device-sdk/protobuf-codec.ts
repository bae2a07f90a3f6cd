import { ClientFrame as ClientEnvelope, ServerFrame as ServerEnvelope } from '../gen/push/v1/device.ts'
import type { FrameCodec } from './codec.ts'
import { type ClientFrame, invalidFrame, type ParsedFrame, readServerFrame } from './frames.ts'

/** Every frame is one serialized message, as bytes. What is JSON in the other form travels as the bytes of its text. */
export const protobufCodec: FrameCodec = {
  subprotocol: 'push.v1.protobuf',
  encode,
  parse(data) {
    const bytes = bytesOf(data)
    return bytes === undefined ? invalidFrame('a text frame') : parse(bytes)
  },
}

function encode(frame: ClientFrame): Uint8Array<ArrayBuffer> {
  const { type: $case, ...value } = frame.type === 'result' ? withDataBytes(frame) : frame
  // The type names the case.
  return ClientEnvelope.encode({ frame: { $case, value } as ClientEnvelope['frame'] }).finish()
}

function withDataBytes({ data, ...frame }: ClientFrame & { type: 'result' }): ClientFrame & { type: 'result' } {
  return data === undefined ? frame : { ...frame, data_bytes: new TextEncoder().encode(JSON.stringify(data)) }
}

function parse(bytes: Uint8Array): ParsedFrame {
  if (bytes.length === 0) return invalidFrame('an empty frame')
  let frame: ServerEnvelope['frame']
  try {
    frame = ServerEnvelope.decode(bytes).frame
  } catch {
    return invalidFrame('not a ServerFrame')
  }
  if (frame === undefined) return { ok: false, reason: 'UNKNOWN_TYPE', message: 'a frame of a type that is not known here' }
  if (frame.$case !== 'message') return readServerFrame(frame.$case, { ...frame.value }, 'protobuf')
  // The first two belong to the JSON form.
  const { data: _data, data_base64: _base64, data_bytes: payload, ...fields } = frame.value
  const read = readServerFrame('message', fields, 'protobuf')
  if (!read.ok || read.frame.type !== 'message' || payload === undefined || payload.length === 0) return read
  return { ok: true, frame: { ...read.frame, data_bytes: payload } }
}

/** A socket may bring an ArrayBuffer, or a view of one, as the package `ws` does. */
function bytesOf(data: unknown): Uint8Array | undefined {
  if (data instanceof ArrayBuffer) return new Uint8Array(data)
  return ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : undefined
}
