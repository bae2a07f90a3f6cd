import { connect, type Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { serveAlone } from '../testing/lone-port.ts'
import { handshakeText } from '../testing/raw-client.ts'

/** How many there are of each kind; `PUSHPLANE_JUNK_CONNECTIONS=10000` for the full number. */
const connections = Number(process.env.PUSHPLANE_JUNK_CONNECTIONS ?? 2_000)
/** Below what a process may have open, with the server's ends in the same process. */
const slice = 500

/** What junk says: nothing, half a request, no HTTP at all, credentials that do not hold, and a header that only a proxy may send. */
const junk = [
  '',
  'GET /v1/connect HTTP/1.1\r\nX-Slow: ',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  handshakeText({ Authorization: 'Bearer junk' }),
  'PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n',
]

function openJunk(port: number, localAddress: string, text: string): { readonly socket: Socket; readonly closed: Promise<void> } {
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  socket.on('error', () => {})
  socket.resume()
  if (text !== '') socket.write(text, 'latin1')
  return { socket, closed: new Promise((resolve) => socket.once('close', () => resolve())) }
}

/** Connects from another address, and waits for the handshake's answer. */
async function honest(port: number): Promise<string> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' })
  socket.write(handshakeText())
  const status = await new Promise<string>((resolve) => {
    socket.once('data', (chunk) => resolve(chunk.toString('latin1', 0, 12)))
    socket.once('error', (error) => resolve(error.message))
    socket.once('close', () => resolve('closed'))
  })
  socket.destroy()
  return status
}

function heapAfterCollection(): number {
  setFlagsFromString('--expose-gc')
  const collect: () => void = runInNewContext('gc')
  collect()
  collect()
  return process.memoryUsage().heapUsed
}

/** Junk in slices, and one honest device in the middle of each. Returns what the honest ones were answered, and the heap after half of it and at the end. */
async function flood(port: Awaited<ReturnType<typeof serveAlone>>, addressOf: (index: number) => string) {
  const number = Number(port.server.address.split(':')[1])
  const answers = new Set<string>()
  let half = 0
  for (let done = 0; done < connections; done += slice) {
    const clients = Array.from({ length: slice }, (_, index) =>
      openJunk(number, addressOf(done + index), junk[index % junk.length] ?? ''),
    )
    answers.add(await honest(number))
    // Those that wait for the server to give up have to be waited for; the clock gives refused ones a little of their rate back as well.
    const over = Promise.all(clients.map(({ closed }) => closed)).then(() => true)
    while (!(await Promise.race([over, port.clock.advance(2_000).then(() => false)])));
    if (half === 0 && done + slice >= connections / 2) half = heapAfterCollection()
  }
  port.client.end()
  await expect.poll(() => port.server.connectionCount).toBe(0)
  expect(port.server.handshakeCount).toBe(0)
  return { answers: [...answers], half, end: heapAfterCollection() }
}

const told = ({ half, end }: { half: number; end: number }, whom: string) =>
  console.info(
    `${connections} from ${whom}: heap ${(half / 1e6).toFixed(1)} MB after half of them, ${(end / 1e6).toFixed(1)} MB at the end`,
  )

test('junk connections from one address leave memory where it was, and other devices come in meanwhile', async () => {
  const port = await serveAlone({ admit: ({ carrier }) => void carrier })
  const { answers, half, end } = await flood(port, () => '127.0.0.1')
  told({ half, end }, 'one address')
  expect(answers).toEqual(['HTTP/1.1 101'])
  // Most were refused for what the first ones had done, and cut where there was no place to hear them.
  expect(await port.metric('push_edge_refusals_total', { reason: 'address_failures' })).toBeGreaterThan(connections / 2)
  expect(await port.metric('push_edge_cut_connections_total', { reason: 'address_failures' })).toBeGreaterThan(connections / 4)
  expect(end).toBeLessThan(half * 1.3)
  await port.close()
}, 120_000)

test('so do junk connections from very many addresses, of which no more are remembered than are to be', async () => {
  const addressesMax = 500
  const port = await serveAlone({ admit: ({ carrier }) => void carrier }, { addressesMax })
  const { answers, half, end } = await flood(port, (index) => `127.1.${index >> 8}.${index & 255}`)
  told({ half, end }, 'as many addresses')
  expect(answers).toEqual(['HTTP/1.1 101'])
  expect(await port.metric('push_edge_addresses', { state: 'connected' })).toBe(0)
  expect(await port.metric('push_edge_addresses', { state: 'remembered' })).toBeLessThanOrEqual(addressesMax)
  expect(end).toBeLessThan(half * 1.3)
  await port.close()
}, 120_000)
