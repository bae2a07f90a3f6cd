import { describe, expect } from 'vitest'
import { clientFrameLimitBytes } from '../server.ts'
import { type EdgeFixture, test } from '../testing/edge-fixture.ts'
import { handshakeText, type RawClient, rawClient } from '../testing/raw-client.ts'
import { closePayload, type FrameOptions, opcodes, wireFrame } from '../testing/wire-frames.ts'

/** The WebSocket protocol as RFC 6455 asks for it, clause by clause, over a raw socket to a whole edge. */

const addressOf = (edge: EdgeFixture) => new URL(edge.url()).host

const dial = (edge: EdgeFixture) => rawClient(addressOf(edge))

/** A client with an open session. */
async function open(edge: EdgeFixture, lines: Record<string, string> = {}) {
  await edge.start()
  const client = dial(edge)
  client.write(handshakeText(lines))
  await expect.poll(() => client.frames().length, { interval: 5 }).toBe(1)
  return client
}

const ping = (data: string) => JSON.stringify({ type: 'ping', data })

/** What the edge has answered to pings of the device protocol. */
const answers = (client: RawClient) =>
  client
    .frames()
    .filter(({ opcode }) => opcode === opcodes.text)
    .map(({ payload }) => JSON.parse(payload.toString()))
    .filter(({ type }) => type === 'pong')
    .map(({ data }) => data)

/** The session goes on: a whole message is understood and answered. */
async function expectAlive(client: RawClient, word = 'still there') {
  client.write(wireFrame(opcodes.text, ping(word)))
  await expect.poll(() => answers(client), { interval: 5 }).toContain(word)
}

/** The session has ended with this code, the connection is closed by the server, and the device's row is gone. */
async function expectFailed(edge: EdgeFixture, client: RawClient, code: number) {
  expect(await client.closeCode()).toBe(code)
  client.end()
  await expect.poll(() => edge.plane.rows.length, { interval: 5 }).toBe(0)
}

describe('4.2 the opening handshake', () => {
  test('4.2.2 the key is answered with the value that the standard computes for it', async ({ edge }) => {
    const client = await open(edge)
    const head = client.received().toString('latin1').split('\r\n\r\n')[0] ?? ''
    expect(head).toMatch(/^HTTP\/1\.1 101 /)
    expect(head).toMatch(/^Upgrade: websocket$/im)
    expect(head).toMatch(/^Connection: Upgrade$/im)
    expect(head).toMatch(/^Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=$/im)
    expect(head).toMatch(/^Sec-WebSocket-Protocol: push\.v1\.json$/im)
  })

  test('4.2.1 names of headers and their tokens are of any case, and Connection may list more', async ({ edge }) => {
    const client = await open(edge, { Upgrade: 'WebSocket', Connection: 'keep-alive, UPGRADE' })
    await expectAlive(client)
  })

  test('9.1 extensions that are offered are left out of the answer', async ({ edge }) => {
    const client = await open(edge, { 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' })
    expect(client.received().toString('latin1')).not.toMatch(/sec-websocket-extensions/i)
    await expectAlive(client)
  })

  test('4.4 another version is answered by 426 and the version that is spoken here', async ({ edge }) => {
    await edge.start()
    for (const version of ['12', '14', '0', 'x', undefined]) {
      const client = dial(edge)
      client.write(handshakeText({ 'Sec-WebSocket-Version': version }))
      expect(await client.status()).toBe(426)
      expect(client.received().toString('latin1')).toMatch(/^sec-websocket-version: 13$/im)
      await client.closed
    }
  })

  const wrong: [what: string, lines: Record<string, string | undefined>, status: number, method?: string][] = [
    ['without a key', { 'Sec-WebSocket-Key': undefined }, 400],
    ['with an empty key', { 'Sec-WebSocket-Key': '' }, 400],
    ['with a key of 15 bytes', { 'Sec-WebSocket-Key': Buffer.alloc(15).toString('base64') }, 400],
    ['with a key of 17 bytes', { 'Sec-WebSocket-Key': Buffer.alloc(17).toString('base64') }, 400],
    ['with a key that is no base64', { 'Sec-WebSocket-Key': '!!!!!!!!!!!!!!!!!!!!!!==' }, 400],
    ['without Host', { Host: undefined }, 400],
    ['without Upgrade', { Upgrade: undefined }, 426],
    ['with an Upgrade to something else', { Upgrade: 'h2c' }, 426],
    ['without Connection', { Connection: undefined }, 426],
    ['with a Connection that does not upgrade', { Connection: 'keep-alive' }, 426],
    ['without a subprotocol', { 'Sec-WebSocket-Protocol': undefined }, 400],
    ['with an unknown subprotocol', { 'Sec-WebSocket-Protocol': 'chat' }, 400],
    ['with a subprotocol that is no token', { 'Sec-WebSocket-Protocol': 'push.v1.json, a b' }, 400],
    ['by POST', {}, 405, 'POST'],
  ]
  test.for(wrong)('4.2.1 a handshake %s is refused', async ([_what, lines, status, method = 'GET'], { edge }) => {
    await edge.start()
    const client = dial(edge)
    client.write(handshakeText(lines, undefined, method))
    expect(await client.status()).toBe(status)
    await client.closed
    expect(edge.plane.registers).toEqual([])
  })

  test('a handshake that comes byte by byte', async ({ edge }) => {
    await edge.start()
    const client = dial(edge)
    for (const byte of handshakeText()) client.write(byte)
    await expect.poll(() => client.frames().length, { interval: 5 }).toBe(1)
    await expectAlive(client)
    client.end()
  })

  test('frames in the packet of the handshake are read; the device protocol wants a welcome first', async ({ edge }) => {
    await edge.start()
    const client = dial(edge)
    client.write(Buffer.concat([Buffer.from(handshakeText()), wireFrame(opcodes.text, ping('early'))]))
    await expect.poll(() => client.received().toString('latin1'), { interval: 5 }).toContain('nothing may be sent before welcome')
    await expect.poll(() => client.received().toString('latin1'), { interval: 5 }).toContain('"welcome"')
    await expectAlive(client)
    client.end()
  })
})

describe('5.1 masking', () => {
  test('a frame without a mask fails the connection', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.text, ping('x'), { mask: undefined }))
    await expectFailed(edge, client, 1002)
  })

  test.for([
    [0, 0, 0, 0],
    [0xff, 0xff, 0xff, 0xff],
    [1, 2, 3, 4],
  ])('each mask is taken off: %o', async (mask, { edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.text, ping('masked'), { mask: Buffer.from(mask) }))
    await expect.poll(() => answers(client), { interval: 5 }).toEqual(['masked'])
  })

  test('the server masks nothing, and sets no reserved bit', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.ping, 'hello'))
    await expectAlive(client)
    client.write(wireFrame(opcodes.close, closePayload(1000)))
    await client.closed
    expect(client.frames().length).toBeGreaterThanOrEqual(4)
    expect(client.frames().filter(({ masked, rsv, fin }) => masked || rsv !== 0 || !fin)).toEqual([])
  })
})

describe('5.2 the frame', () => {
  test.for([1, 2, 3, 4, 5, 6, 7])('reserved bits %i fail the connection', async (rsv, { edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.text, ping('x'), { rsv }))
    await expectFailed(edge, client, 1002)
  })

  test.for([3, 4, 5, 6, 7, 11, 12, 13, 14, 15])('reserved opcode %i fails the connection', async (opcode, { edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcode, ''))
    await expectFailed(edge, client, 1002)
  })

  test('lengths of 7, 16 and 64 bits', async ({ edge }) => {
    const client = await open(edge)
    const padded = (word: string, length: number) => ping(word).padEnd(length, ' ')
    for (const [word, length] of [
      ['a', 125],
      ['b', 126],
      ['c', 127],
      ['d', 65_535],
      ['e', 65_536],
    ] as const) {
      client.write(wireFrame(opcodes.text, padded(word, length)))
      await expect.poll(() => answers(client), { interval: 5 }).toContain(word)
    }
  })

  test.for<[string, FrameOptions, number]>([
    ['over what a number can hold', { lengthBits: 64, claimedLength: 1n << 62n }, 1009],
    ['with the highest bit set', { lengthBits: 64, claimedLength: 1n << 63n }, 1009],
    ['one over the limit', { claimedLength: BigInt(clientFrameLimitBytes) + 1n }, 1009],
  ])('10.4 a length %s fails the connection before its payload comes', async ([_what, options, code], { edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.text, '', options))
    await expectFailed(edge, client, code)
  })

  test('a frame byte by byte', async ({ edge }) => {
    const client = await open(edge)
    for (const byte of wireFrame(opcodes.text, ping('slowly'))) client.write(Buffer.from([byte]))
    await expect.poll(() => answers(client), { interval: 5 }).toEqual(['slowly'])
  })

  test('many frames in one packet', async ({ edge }) => {
    const client = await open(edge)
    const words = Array.from({ length: 20 }, (_, index) => `word ${index}`)
    client.write(Buffer.concat(words.map((word) => wireFrame(opcodes.text, ping(word)))))
    await expect.poll(() => answers(client), { interval: 5 }).toEqual(words)
  })
})

describe('5.4 fragmentation', () => {
  const part = (opcode: number, payload: Buffer | string, fin: boolean) => wireFrame(opcode, payload, { fin })

  test('a message in fragments, one of them empty, with control frames between', async ({ edge }) => {
    const client = await open(edge)
    const message = ping('in parts')
    client.write(part(opcodes.text, message.slice(0, 7), false))
    client.write(wireFrame(opcodes.ping, 'between'))
    // Control frames are answered at once: the message is not whole yet.
    await expect.poll(() => client.frames().some(({ opcode }) => opcode === opcodes.pong), { interval: 5 }).toBe(true)
    expect(answers(client)).toEqual([])
    client.write(part(opcodes.continuation, '', false))
    client.write(wireFrame(opcodes.pong, ''))
    client.write(part(opcodes.continuation, message.slice(7), true))
    await expect.poll(() => answers(client), { interval: 5 }).toEqual(['in parts'])
  })

  test.for<[string, Buffer[]]>([
    ['a continuation of nothing', [part(opcodes.continuation, 'x', true)]],
    ['a continuation of nothing, not the last', [part(opcodes.continuation, 'x', false)]],
    ['a text within a message', [part(opcodes.text, '{', false), part(opcodes.text, '}', true)]],
    ['a binary within a message', [part(opcodes.text, '{', false), part(opcodes.binary, '}', true)]],
  ])('%s fails the connection', async ([_what, frames], { edge }) => {
    const client = await open(edge)
    for (const frame of frames) client.write(frame)
    await expectFailed(edge, client, 1002)
  })
})

describe('5.5 control frames', () => {
  test.for([opcodes.close, opcodes.ping, opcodes.pong])(
    'opcode %i in fragments fails the connection',
    async (opcode, { edge }) => {
      const client = await open(edge)
      client.write(wireFrame(opcode, '', { fin: false }))
      await expectFailed(edge, client, 1002)
    },
  )

  test.for([opcodes.close, opcodes.ping, opcodes.pong])(
    'opcode %i of 126 bytes fails the connection',
    async (opcode, { edge }) => {
      const client = await open(edge)
      client.write(wireFrame(opcode, Buffer.concat([closePayload(1000), Buffer.alloc(124, 'x')])))
      await expectFailed(edge, client, 1002)
    },
  )

  test.for(['', 'x', 'a'.repeat(125), '\u0000\u00ff'])(
    '5.5.3 a ping is answered by a pong with its payload',
    async (payload, { edge }) => {
      const client = await open(edge)
      client.write(wireFrame(opcodes.ping, payload))
      const pongs = () => client.frames().filter(({ opcode }) => opcode === opcodes.pong)
      await expect.poll(() => pongs().map((frame) => frame.payload.toString()), { interval: 5 }).toEqual([payload])
    },
  )

  test('5.5.3 a pong that nobody asked for is no matter', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.pong, 'unasked'))
    await expectAlive(client)
  })
})

describe('5.5.1 and 7 closing', () => {
  test.for([1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])(
    '7.4 code %i is given back, and the server closes the connection',
    async (code, { edge }) => {
      const client = await open(edge)
      client.write(wireFrame(opcodes.close, closePayload(code, 'done')))
      await client.closed
      const last = client.frames().at(-1)
      expect(last?.opcode).toBe(opcodes.close)
      expect(last?.payload.readUInt16BE(0)).toBe(code)
      await expect.poll(() => edge.plane.rows.length, { interval: 5 }).toBe(0)
    },
  )

  test('5.5.1 a close without a code is answered', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.close))
    await client.closed
    expect(client.frames().at(-1)?.opcode).toBe(opcodes.close)
  })

  test.for([0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])(
    '7.4 code %i may not be on the wire',
    async (code, { edge }) => {
      const client = await open(edge)
      client.write(wireFrame(opcodes.close, closePayload(code)))
      await expectFailed(edge, client, 1002)
    },
  )

  test('5.5.1 half a code fails the connection', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.close, Buffer.from([3])))
    await expectFailed(edge, client, 1002)
  })

  test('5.5.1 a reason that is not UTF-8 fails the connection', async ({ edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.close, closePayload(1000, Buffer.from([0xc3, 0x28]))))
    await expectFailed(edge, client, 1007)
  })

  test('5.5.1 what comes after a close is not read', async ({ edge }) => {
    const client = await open(edge)
    client.write(Buffer.concat([wireFrame(opcodes.close, closePayload(1000)), wireFrame(opcodes.text, ping('late'))]))
    await client.closed
    expect(answers(client)).toEqual([])
  })

  test('7.2.1 a client that goes without a close frame takes its session with it', async ({ edge }) => {
    const client = await open(edge)
    client.end()
    await expect.poll(() => edge.plane.rows.length, { interval: 5 }).toBe(0)
  })
})

describe('8.1 UTF-8', () => {
  test('whole characters, also split over fragments within one', async ({ edge }) => {
    const client = await open(edge)
    const word = 'κόσμε \u{10FFFF} \uFFFD ü'
    const bytes = Buffer.from(ping(word))
    const cut = bytes.indexOf(Buffer.from('\u{10FFFF}')) + 2
    client.write(wireFrame(opcodes.text, bytes.subarray(0, cut), { fin: false }))
    client.write(wireFrame(opcodes.continuation, bytes.subarray(cut)))
    await expect.poll(() => answers(client), { interval: 5 }).toEqual([word])
  })

  test.for<[string, number[]]>([
    ['a lone continuation byte', [0x80]],
    ['a character cut off at the end', [0xe2, 0x82]],
    ['an overlong slash of two bytes', [0xc0, 0xaf]],
    ['an overlong slash of three bytes', [0xe0, 0x80, 0xaf]],
    ['a surrogate', [0xed, 0xa0, 0x80]],
    ['above U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
    ['a byte that no character has', [0xfe]],
    ['five bytes', [0xf8, 0x88, 0x80, 0x80, 0x80]],
  ])('%s fails the connection', async ([_what, bytes], { edge }) => {
    const client = await open(edge)
    client.write(wireFrame(opcodes.text, Buffer.concat([Buffer.from('"'), Buffer.from(bytes), Buffer.from('"')])))
    await expectFailed(edge, client, 1007)
  })
})
