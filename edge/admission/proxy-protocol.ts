import { isIPv4, isIPv6 } from 'node:net'
import { canonicalAddress } from '../../service-kit/address-set.ts'

/** Who stands behind the proxy. */
export interface ProxySource {
  readonly address: string
  readonly port: number
}

/** What the bytes so far come to. Which one it is, and the problem told, does not depend on how the bytes were cut. */
export type ProxyVerdict =
  | { readonly type: 'more' }
  /** Complete. `source` is undefined when the proxy speaks for itself (health checks) or does not know. `rest` came behind the header. */
  | { readonly type: 'header'; readonly version: 1 | 2; readonly source: ProxySource | undefined; readonly rest: Buffer }
  | { readonly type: 'malformed'; readonly problem: string }

/** Takes the first bytes of a connection. Not to be asked again after a verdict other than `more`. */
export interface ProxyReader {
  push(chunk: Buffer): ProxyVerdict
}

/** The longest line of version 1, with its end (proxy-protocol.txt, section 2.1). */
const lineLimitBytes = 107
/** The longest block of version 2 behind its 16 bytes; addresses and what proxies add to them take some hundred. */
export const blockLimitBytes = 4_096
const lineStart = Buffer.from('PROXY ')
const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const fixedBytes = 16
const more: ProxyVerdict = { type: 'more' }

/** Reads a header of the PROXY protocol, version 1 or 2, as HAProxy's proxy-protocol.txt describes them. Holds no more than one header and the last chunk. */
export function createProxyReader(): ProxyReader {
  let held: Buffer = Buffer.alloc(0)
  return {
    push(chunk) {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk])
      return read(held)
    },
  }
}

/** Whether a connection begins as a header does: to say what is wrong where none is allowed. */
export function looksLikeProxyHeader(bytes: Buffer): boolean {
  return [lineStart, signature].some((start) => bytes.subarray(0, start.length).equals(start))
}

// Every check below looks only at bytes up to its own place, in order: so the first problem is the same however the bytes come.
function read(bytes: Buffer): ProxyVerdict {
  if (bytes.length === 0) return more
  const start = bytes[0] === signature[0] ? signature : lineStart
  const known = Math.min(bytes.length, start.length)
  if (!bytes.subarray(0, known).equals(start.subarray(0, known))) return malformed('the connection does not begin with a header')
  if (known < start.length) return more
  return start === signature ? readBlock(bytes) : readLine(bytes)
}

function readLine(bytes: Buffer): ProxyVerdict {
  const end = bytes.subarray(0, lineLimitBytes).indexOf('\r\n', 0, 'latin1')
  if (end < 0) return bytes.length < lineLimitBytes ? more : malformed('the line does not end')
  const rest = bytes.subarray(end + 2)
  const words = bytes.toString('latin1', lineStart.length, end).split(' ')
  const [family] = words
  // Whatever stands behind UNKNOWN is to be ignored.
  if (family === 'UNKNOWN') return { type: 'header', version: 1, source: undefined, rest }
  if (family !== 'TCP4' && family !== 'TCP6') return malformed('the family is none of TCP4, TCP6, UNKNOWN')
  if (words.length !== 5) return malformed('the line does not have two addresses and two ports')
  const [, from = '', to = '', fromPort = '', toPort = ''] = words
  const isAddress = family === 'TCP4' ? isIPv4 : isPlainIPv6
  if (!isAddress(from) || !isAddress(to)) return malformed('an address is not of its family')
  if (!isPort(fromPort) || !isPort(toPort)) return malformed('a port is none')
  // Cut out of the line, it would keep the whole of it alive for as long as a session lasts.
  const address = Buffer.from(canonicalAddress(from) ?? from, 'latin1').toString('latin1')
  return { type: 'header', version: 1, source: { address, port: Number(fromPort) }, rest }
}

function isPlainIPv6(text: string): boolean {
  return isIPv6(text) && !text.includes('%')
}

function isPort(text: string): boolean {
  return /^(0|[1-9]\d{0,4})$/.test(text) && Number(text) <= 65_535
}

/** Bytes that addresses and ports take, by family and transport. Datagrams are of no meaning here. */
const addressBytes = new Map([
  [0x00, 0],
  [0x11, 12],
  [0x21, 36],
  [0x31, 216],
])

function readBlock(bytes: Buffer): ProxyVerdict {
  const [command, family] = [bytes[12], bytes[13]]
  if (command === undefined) return more
  if (command !== 0x20 && command !== 0x21) return malformed('version or command is not known')
  if (family === undefined) return more
  const isLocal = command === 0x20
  const needed = addressBytes.get(family)
  // Of a proxy that speaks for itself the family is to be ignored.
  if (needed === undefined && !isLocal) return malformed('family or transport is not known')
  if (bytes.length < fixedBytes) return more
  const length = bytes.readUInt16BE(14)
  if (length > blockLimitBytes) return malformed(`the header is longer than ${blockLimitBytes} bytes`)
  if (!isLocal && length < (needed ?? 0)) return malformed('the header is too short for its addresses')
  if (bytes.length < fixedBytes + length) return more
  const header = bytes.subarray(0, fixedBytes + length)
  const rest = bytes.subarray(fixedBytes + length)
  if (isLocal) return { type: 'header', version: 2, source: undefined, rest }
  const problem = problemOfAdditions(header, fixedBytes + (needed ?? 0))
  if (problem !== undefined) return malformed(problem)
  return { type: 'header', version: 2, source: sourceOf(header, family), rest }
}

function sourceOf(header: Buffer, family: number): ProxySource | undefined {
  if (family === 0x11) return { address: [...header.subarray(16, 20)].join('.'), port: header.readUInt16BE(24) }
  if (family !== 0x21) return undefined
  const groups = Array.from({ length: 8 }, (_, index) => header.readUInt16BE(16 + 2 * index).toString(16))
  const address = groups.join(':')
  return { address: canonicalAddress(address) ?? address, port: header.readUInt16BE(48) }
}

const checksumType = 0x03

/** What proxies add behind the addresses: type, length, value, to the end. Only the checksum is looked at. */
function problemOfAdditions(header: Buffer, from: number): string | undefined {
  let at = from
  while (at < header.length) {
    if (at + 3 > header.length) return 'an addition is cut off'
    const length = header.readUInt16BE(at + 1)
    const value = at + 3
    if (value + length > header.length) return 'an addition is longer than the header'
    if (header[at] === checksumType) {
      if (length !== 4) return 'the checksum does not have four bytes'
      if (crc32c(header, value) !== header.readUInt32BE(value)) return 'the checksum is wrong'
    }
    at = value + length
  }
  return undefined
}

/** CRC-32C (RFC 3720, B.4) of the header, with the four bytes of the checksum itself taken as 0. */
export function crc32c(header: Buffer, checksumAt: number): number {
  let crc = 0xffffffff
  for (const [index, byte] of header.entries()) {
    crc ^= index >= checksumAt && index < checksumAt + 4 ? 0 : byte
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1
  }
  return (crc ^ 0xffffffff) >>> 0
}

function malformed(problem: string): ProxyVerdict {
  return { type: 'malformed', problem }
}
