import { open } from 'node:fs/promises'
import { UsageError } from './usage-error.ts'

/** Most bytes that a message carries. */
export const PAYLOAD_BYTES_MAX = 65_536

/** What a message carries. */
export interface Payload {
  readonly bytes: Buffer
  /** Empty when the payload is: the service's default holds then. */
  readonly contentType: string
}

/**
 * Reads what `--data` names: `@file`, `-` for standard input, else the text itself. Throws UsageError when it cannot be read or is too large;
 * no more than that is ever read.
 */
export async function readPayload(
  data: string | undefined,
  contentType: string | undefined,
  stdin: AsyncIterable<Uint8Array | string>,
): Promise<Payload> {
  const bytes = await readBytes(data, stdin)
  if (bytes.length > PAYLOAD_BYTES_MAX) throw new UsageError(`the data is larger than ${PAYLOAD_BYTES_MAX} bytes`)
  return { bytes, contentType: contentType ?? guessContentType(bytes) }
}

async function readBytes(data: string | undefined, stdin: AsyncIterable<Uint8Array | string>): Promise<Buffer> {
  if (data === undefined) return Buffer.alloc(0)
  if (data === '-') return readSome(stdin)
  if (!data.startsWith('@')) return Buffer.from(data)
  const path = data.slice(1)
  try {
    const file = await open(path)
    try {
      return await readSome(file.createReadStream({ end: PAYLOAD_BYTES_MAX }))
    } finally {
      await file.close()
    }
  } catch (error) {
    throw new UsageError(`cannot read ${path}: ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function readSome(source: AsyncIterable<Uint8Array | string>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of source) {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : chunk
    chunks.push(bytes)
    length += bytes.length
    if (length > PAYLOAD_BYTES_MAX) break
  }
  return Buffer.concat(chunks)
}

function guessContentType(bytes: Uint8Array): string {
  if (bytes.length === 0) return ''
  let text: string
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    return 'application/octet-stream'
  }
  try {
    JSON.parse(text)
    return 'application/json'
  } catch {
    return 'text/plain'
  }
}
