import { createHash } from 'node:crypto'
import type { Clock } from './clock.ts'
import type { Random } from './random.ts'

/** What ids of devices, accounts, sessions and messages look like: 1 to 128 of these characters. */
export const PUSH_ID_PATTERN = /^[A-Za-z0-9._:~-]{1,128}$/

/** Whether a text may be such an id. */
export function isPushId(text: string): boolean {
  return PUSH_ID_PATTERN.test(text)
}

/** A new UUID version 7 (RFC 9562): its text sorts by the millisecond it was made in; the rest is random. */
export function uuidV7(clock: Clock, random: Random): string {
  const bytes = new Uint8Array(16)
  bytes.set(random.bytes(10), 6)
  let milliseconds = clock.now()
  for (let index = 5; index >= 0; index--) {
    bytes[index] = milliseconds % 256
    milliseconds = Math.floor(milliseconds / 256)
  }
  return uuidText(bytes, 7)
}

/**
 * The UUID version 8 (RFC 9562) that belongs to these texts: equal texts give equal ids. Each text is hashed with its
 * length before it, so that `['ab', 'c']` and `['a', 'bc']` differ. The hash is SHA-256, cut to the 122 free bits.
 */
export function uuidV8FromHash(parts: readonly string[]): string {
  const hash = createHash('sha256')
  for (const part of parts) {
    const bytes = Buffer.from(part, 'utf8')
    const length = Buffer.alloc(4)
    length.writeUInt32BE(bytes.length)
    hash.update(length).update(bytes)
  }
  return uuidText(hash.digest().subarray(0, 16), 8)
}

const suffixAlphabet = 'abcdefghijklmnopqrstuvwxyz0123456789'

/** So many random characters of `[a-z0-9]`, each equally likely. */
export function randomSuffix(random: Random, length: number): string {
  // Bytes above the last whole round of the alphabet are drawn again: without that the first letters come more often.
  const evenUntil = 256 - (256 % suffixAlphabet.length)
  let suffix = ''
  while (suffix.length < length) {
    for (const byte of random.bytes(length - suffix.length)) {
      if (byte < evenUntil) suffix += suffixAlphabet.charAt(byte % suffixAlphabet.length)
    }
  }
  return suffix
}

function uuidText(bytes: Uint8Array, version: number): string {
  const marked = Buffer.from(bytes)
  marked.writeUInt8((version << 4) | (marked.readUInt8(6) & 0x0f), 6)
  marked.writeUInt8(0x80 | (marked.readUInt8(8) & 0x3f), 8)
  const hex = marked.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
