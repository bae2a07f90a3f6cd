import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { blockLimitBytes, crc32c, createProxyReader, looksLikeProxyHeader, type ProxyVerdict } from './proxy-protocol.ts'

const signature = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')
const seed = 20_260_101

/** A block of version 2. */
function block(command: number, family: number, body: Buffer, length = body.length): Buffer {
  return Buffer.concat([signature, Buffer.from([command, family, length >> 8, length & 0xff]), body])
}

const v4 = Buffer.from('c0000207c63364011f9001bb', 'hex')
const v6 = Buffer.from(`${'20010db8'.padEnd(31, '0')}5${'20010db8'.padEnd(31, '0')}11f9001bb`, 'hex')
const tlv = (type: number, value: Buffer) => Buffer.concat([Buffer.from([type, value.length >> 8, value.length & 0xff]), value])

/** A block with a right checksum, another addition before it and one behind. */
function withChecksum(wrong = false): Buffer {
  const header = block(
    0x21,
    0x11,
    Buffer.concat([v4, tlv(0x01, Buffer.from('h2')), tlv(0x03, Buffer.alloc(4)), tlv(0x04, Buffer.alloc(5))]),
  )
  const at = 16 + 12 + 5 + 3
  header.writeUInt32BE((crc32c(header, at) ^ (wrong ? 1 : 0)) >>> 0, at)
  return header
}

const whole = (bytes: Buffer): ProxyVerdict => createProxyReader().push(bytes)

/** The bytes in pieces; asked no further than to the first verdict. The rest is what was not looked at yet as well. */
function inPieces(bytes: Buffer, cuts: readonly number[]): ProxyVerdict {
  const reader = createProxyReader()
  let from = 0
  for (const cut of [...cuts.filter((at) => at < bytes.length).sort((a, b) => a - b), bytes.length]) {
    const verdict = reader.push(bytes.subarray(from, cut))
    from = cut
    if (verdict.type === 'header') return { ...verdict, rest: Buffer.concat([verdict.rest, bytes.subarray(from)]) }
    if (verdict.type === 'malformed') return verdict
  }
  return { type: 'more' }
}

const line = (text: string) => Buffer.from(text, 'latin1')
const good: [what: string, bytes: Buffer, source: { address: string; port: number } | undefined][] = [
  ['TCP4', line('PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\r\n'), { address: '192.0.2.7', port: 8080 }],
  ['TCP6', line('PROXY TCP6 2001:DB8::5 2001:db8::1 8080 443\r\n'), { address: '2001:db8::5', port: 8080 }],
  ['TCP6 with a mapped address', line('PROXY TCP6 ::ffff:192.0.2.7 ::1 1 2\r\n'), { address: '192.0.2.7', port: 1 }],
  ['UNKNOWN', line('PROXY UNKNOWN\r\n'), undefined],
  ['UNKNOWN with what is to be ignored', line('PROXY UNKNOWN ffff:: junk 1\r\n'), undefined],
  ['the longest line', line(`PROXY UNKNOWN ${'x'.repeat(91)}\r\n`), undefined],
  ['a block, IPv4', block(0x21, 0x11, v4), { address: '192.0.2.7', port: 8080 }],
  ['a block, IPv6', block(0x21, 0x21, v6), { address: '2001:db8::5', port: 8080 }],
  ['a block, UNIX', block(0x21, 0x31, Buffer.alloc(216)), undefined],
  ['a block without family', block(0x21, 0x00, Buffer.alloc(0)), undefined],
  ['a block of the proxy itself', block(0x20, 0x00, Buffer.alloc(0)), undefined],
  ['a block of the proxy itself with a family that is to be ignored', block(0x20, 0x77, Buffer.from('junk')), undefined],
  ['a block with additions and a checksum', withChecksum(), { address: '192.0.2.7', port: 8080 }],
  [
    'the longest block',
    block(0x21, 0x11, Buffer.concat([v4, tlv(0xe0, Buffer.alloc(blockLimitBytes - 15))])),
    { address: '192.0.2.7', port: 8080 },
  ],
]

const bad: [what: string, bytes: Buffer, problem: RegExp][] = [
  ['no header', line('GET / HTTP/1.1\r\n'), /does not begin/],
  ['a line in small letters', line('proxy TCP4 '), /does not begin/],
  ['a signature with one wrong byte', Buffer.concat([signature.subarray(0, 11), Buffer.from('x')]), /does not begin/],
  ['a line without end', line(`PROXY UNKNOWN ${'x'.repeat(93)}`), /does not end/],
  ['a line whose end comes one byte late', line(`PROXY UNKNOWN ${'x'.repeat(92)}\r\n`), /does not end/],
  ['an unknown family', line('PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n'), /family/],
  ['two spaces', line('PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n'), /two addresses/],
  ['a word too many', line('PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n'), /two addresses/],
  ['an address with zeros before', line('PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n'), /address/],
  ['an address of the other family', line('PROXY TCP4 ::1 1.2.3.4 1 2\r\n'), /address/],
  ['an address with a zone', line('PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n'), /address/],
  ['a name', line('PROXY TCP4 localhost 1.2.3.4 1 2\r\n'), /address/],
  ['a port too large', line('PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n'), /port/],
  ['a port with a sign', line('PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n'), /port/],
  ['a line feed alone', line('PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n\r\n'), /port/],
  ['another version', block(0x31, 0x11, v4), /version or command/],
  ['another command', block(0x22, 0x11, v4), /version or command/],
  ['datagrams', block(0x21, 0x12, v4), /family or transport/],
  ['an unknown family in a block', block(0x21, 0x41, v4), /family or transport/],
  ['a block too short', block(0x21, 0x21, v4), /too short/],
  ['a block too long', block(0x21, 0x11, v4, blockLimitBytes + 1), /longer than 4096/],
  ['an addition cut off', block(0x21, 0x11, Buffer.concat([v4, Buffer.from([1, 0])])), /cut off/],
  ['an addition too long', block(0x21, 0x11, Buffer.concat([v4, Buffer.from([1, 0, 9, 0])])), /longer than the header/],
  ['a wrong checksum', withChecksum(true), /checksum is wrong/],
  ['a checksum of another length', block(0x21, 0x11, Buffer.concat([v4, tlv(3, Buffer.alloc(2))])), /four bytes/],
]

test.each(good)('%s is read, and what comes behind it is handed on', (_what, bytes, source) => {
  expect(whole(bytes)).toEqual({ type: 'header', version: bytes[0] === 0x50 ? 1 : 2, source, rest: Buffer.alloc(0) })
  expect(whole(Buffer.concat([bytes, Buffer.from('GET /')]))).toMatchObject({ source, rest: Buffer.from('GET /') })
  for (let length = 0; length < Math.min(bytes.length, 300); length++) expect(whole(bytes.subarray(0, length)).type).toBe('more')
})

test.each(bad)('%s is refused', (_what, bytes, problem) => {
  expect(whole(bytes)).toEqual({ type: 'malformed', problem: expect.stringMatching(problem) })
})

test('the checksum is CRC-32C', () => {
  // The check value of the algorithm: "123456789", with no byte taken as 0.
  expect(crc32c(Buffer.from('123456789'), 99)).toBe(0xe3069283)
})

test('a connection that begins with a header is known by it', () => {
  for (const [, bytes] of good) expect(looksLikeProxyHeader(bytes)).toBe(true)
  expect(looksLikeProxyHeader(Buffer.from('GET /'))).toBe(false)
  expect(looksLikeProxyHeader(signature.subarray(0, 5))).toBe(false)
})

describe('whatever comes', () => {
  const samples = [...good, ...bad].map(([, bytes]) => bytes)
  /** Real headers, some with bytes changed, with more behind; and plain noise. */
  const input = fc.oneof(
    fc
      .tuple(
        fc.constantFrom(...samples),
        fc.array(fc.tuple(fc.nat(300), fc.nat(255)), { maxLength: 3 }),
        fc.uint8Array({ maxLength: 40 }),
      )
      .map(([sample, changes, behind]) => {
        const bytes = Buffer.concat([sample, behind])
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        return bytes
      }),
    fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)),
  )

  test('it never throws, and says the same however the bytes are cut', () => {
    fc.assert(
      fc.property(input, fc.array(fc.nat(450), { maxLength: 30 }), (bytes, cuts) => {
        expect(inPieces(bytes, cuts)).toEqual(whole(bytes))
      }),
      { seed, numRuns: 3_000 },
    )
  })

  test('byte by byte as well, and there is always a verdict within the bounds of a header', () => {
    fc.assert(
      fc.property(input, (bytes) => {
        const endless = Buffer.concat([bytes, Buffer.alloc(16 + blockLimitBytes)])
        const every = Array.from({ length: endless.length }, (_, index) => index)
        const verdict = inPieces(endless, every.slice(0, 600))
        expect(verdict.type).not.toBe('more')
        expect(verdict).toEqual(whole(endless))
      }),
      { seed, numRuns: 150 },
    )
  })
})
