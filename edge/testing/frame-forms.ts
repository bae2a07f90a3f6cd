import { ClientFrame, ServerFrame } from '../../gen/push/v1/device.ts'

/** A frame from the edge as the JSON form would have it, whichever form it came in. A payload in bytes is taken for JSON. */
export function serverFrameOf(data: Buffer, isBinary: boolean): Record<string, unknown> {
  if (!isBinary) return JSON.parse(data.toString('utf8'))
  const { frame } = ServerFrame.decode(data)
  if (frame === undefined) throw new Error('the edge sent a frame without a case')
  const fields: Record<string, unknown> = { ...frame.value }
  if (fields.data_bytes !== undefined) {
    fields.data = JSON.parse(Buffer.from(fields.data_bytes as Uint8Array).toString('utf8'))
    delete fields.data_bytes
  }
  const set = Object.entries(fields).filter(([, value]) => value !== undefined)
  return { type: frame.$case, ...Object.fromEntries(set) }
}

/** A frame of the JSON form as a device sends it in the other. */
export function clientFrameBytes(frame: object): Uint8Array {
  const { type, data, ...fields } = frame as Record<string, unknown>
  const value =
    type === 'result' && data !== undefined ? { ...fields, data_bytes: Buffer.from(JSON.stringify(data)) } : { ...fields, data }
  return ClientFrame.encode({ frame: { $case: type, value } as ClientFrame['frame'] }).finish()
}
