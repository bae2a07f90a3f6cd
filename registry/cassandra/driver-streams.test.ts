import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { Client } from 'cassandra-driver'
import Connection from 'cassandra-driver/lib/connection.js'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { driverOptions } from './client.ts'
import { keepStreamsApart } from './driver-streams.ts'

const opcodes = {
  error: 0x00,
  startup: 0x01,
  ready: 0x02,
  authenticate: 0x03,
  query: 0x07,
  result: 0x08,
  authResponse: 0x0f,
  authSuccess: 0x10,
}
const protocolError = 0x0a
const overloaded = 0x1001
/** What the node speaks. */
const version = 4
const setKeyspace = 3

/** A node of Cassandra that answers what, when and on which stream the test says. */
class ScriptedNode {
  /** Requests that are not answered: text and stream, in the order of arrival. */
  readonly asked: { text: string; streamId: number }[] = []
  /** Asks for a login, and does so on stream 0 whatever stream the connection began on, as Cassandra 5.0 does. */
  wantsLogin = false
  readonly #server = createServer((socket) => this.#serve(socket))
  #socket: Socket | undefined

  async listen(): Promise<string> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    return `127.0.0.1:${address.port}`
  }

  #serve(socket: Socket): void {
    this.#socket = socket
    let waiting = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      waiting = Buffer.concat([waiting, chunk])
      while (waiting.length >= 9 && waiting.length >= 9 + waiting.readUInt32BE(5)) {
        const end = 9 + waiting.readUInt32BE(5)
        const streamId = waiting.readInt16BE(2)
        const opcode = waiting[4]
        if (waiting[0] !== version) this.#refuse(0, protocolError, 'Invalid or unsupported protocol version (66)')
        else if (opcode === opcodes.startup && this.wantsLogin)
          this.#send(opcodes.authenticate, 0, string('PasswordAuthenticator'))
        else if (opcode === opcodes.startup) this.#send(opcodes.ready, streamId, Buffer.alloc(0))
        else if (opcode === opcodes.authResponse) this.#send(opcodes.authSuccess, streamId, int(-1))
        else this.asked.push({ text: waiting.toString('utf8', 9, end), streamId })
        waiting = waiting.subarray(end)
      }
    })
  }

  #send(opcode: number, streamId: number, body: Buffer): void {
    this.#socket?.write(frame(0x80 | version, opcode, streamId, body))
  }

  /** Says what it was asked, on the stream on which it was. */
  answer({ text, streamId }: { text: string; streamId: number }): void {
    this.#send(opcodes.result, streamId, Buffer.concat([int(setKeyspace), string(text)]))
  }

  refuseOn(streamId: number): void {
    this.#refuse(streamId, overloaded, 'Query timed out before it could start')
  }

  #refuse(streamId: number, code: number, text: string): void {
    this.#send(opcodes.error, streamId, Buffer.concat([int(code), string(text)]))
  }

  async close(): Promise<void> {
    this.#socket?.destroy()
    this.#server.close()
    await once(this.#server, 'close')
  }
}

function frame(head: number, opcode: number, streamId: number, body: Buffer): Buffer {
  const header = Buffer.alloc(9)
  header[0] = head
  header.writeInt16BE(streamId, 2)
  header[4] = opcode
  header.writeUInt32BE(body.length, 5)
  return Buffer.concat([header, body])
}

function int(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

let node: ScriptedNode
let connection: Connection

beforeEach(async () => {
  keepStreamsApart()
  node = new ScriptedNode()
  connection = await open(await node.listen())
})

async function open(address: string, login?: { user: string; password: string }): Promise<Connection> {
  const client = new Client(
    driverOptions({
      contactPoints: [address],
      port: 9042,
      localDataCenter: 'dc',
      keyspace: 'push',
      createKeyspace: false,
      replicationFactor: 1,
      user: login?.user,
      password: login?.password,
      readTimeoutMs: 30_000,
      connectTimeoutMs: 30_000,
    }),
  )
  // Which version the node speaks is found out, as it is at the start of a registry.
  const opened = new Connection(address, null, Reflect.get(client, 'options'))
  await opened.openAsync()
  return opened
}

afterEach(async () => {
  await connection.closeAsync()
  await node.close()
})

/** What the node is told, as the answer says it. */
const ask = (text: string) =>
  connection
    .send({ write: (_encoder, streamId) => frame(version, opcodes.query, streamId, Buffer.from(text)) }, null)
    .then(({ keyspaceSet }) => keyspaceSet)

async function heard(count: number): Promise<{ text: string; streamId: number }[]> {
  await expect.poll(() => node.asked.length, { timeout: 10_000 }).toBe(count)
  return node.asked
}

test('a refusal on stream 0 is nobody’s answer, and each request gets its own', async () => {
  const first = ask('first')
  await heard(1)
  node.refuseOn(0)
  const others = [ask('second'), ask('third')]
  for (const asked of await heard(3)) node.answer(asked)
  expect(await Promise.all([first, ...others])).toEqual(['first', 'second', 'third'])
  const streams = node.asked.map(({ streamId }) => streamId)
  expect(streams).not.toContain(0)
  expect(new Set(streams).size).toBe(3)
})

test('a node that asks for a login on stream 0 is logged in to, and what is asked then goes on other streams', async () => {
  const guarded = new ScriptedNode()
  guarded.wantsLogin = true
  const loggedIn = await open(await guarded.listen(), { user: 'registry', password: 'secret' })
  try {
    const asking = loggedIn.send(
      { write: (_encoder, streamId) => frame(0x04, opcodes.query, streamId, Buffer.from('after')) },
      null,
    )
    await expect.poll(() => guarded.asked.length, { timeout: 10_000 }).toBe(1)
    expect(guarded.asked[0]?.streamId).not.toBe(0)
    for (const asked of guarded.asked) guarded.answer(asked)
    expect((await asking).keyspaceSet).toBe('after')
  } finally {
    await loggedIn.closeAsync()
    await guarded.close()
  }
})

test('an answer that nobody waits for frees nothing', async () => {
  node.refuseOn(5)
  // It has been read when an answer that was sent after it has come.
  const next = ask('next')
  for (const one of await heard(1)) node.answer(one)
  await next
  const names = Array.from({ length: 8 }, (_, index) => `number ${index}`)
  const all = names.map(ask)
  const asked = (await heard(9)).slice(1)
  expect(new Set(asked.map(({ streamId }) => streamId)).size).toBe(8)
  for (const one of asked) node.answer(one)
  expect(await Promise.all(all)).toEqual(names)
})

test('a connection comes to rest: no stream counts as used when all is answered', async () => {
  const asking = ask('only')
  for (const one of await heard(1)) node.answer(one)
  await asking
  await expect.poll(() => connection._streamIds.inUse, { timeout: 10_000 }).toBe(0)
})
