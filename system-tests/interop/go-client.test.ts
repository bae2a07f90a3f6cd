import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, expect } from 'vitest'
import { deliveryOf } from '../../edge/testing/deliveries.ts'
import { type EdgeFixture, test } from '../../edge/testing/edge-fixture.ts'
import { CloseReason, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'

// A client in Go against a real edge: a WebSocket library with nothing in common with the edge's, and a device written from the protocol's page.

const { WRITTEN, ACKNOWLEDGED, RESULT } = OutcomeKind
const source = new URL('../../examples/go', import.meta.url).pathname

let folder = ''
let binary = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'go-client-'))
  binary = join(folder, 'listen')
  // GOFLAGS of the machine must not change go.mod, nor ask for version control.
  const env = { ...process.env, GOFLAGS: '-mod=readonly -buildvcs=false' }
  await promisify(execFile)('go', ['build', '-o', binary, '.'], { cwd: source, env })
}, 240_000)
afterAll(() => rm(folder, { recursive: true, force: true }))

const clients: ChildProcess[] = []
afterEach(() => {
  for (const client of clients.splice(0)) client.kill('SIGKILL')
})

/** Starts the client, and keeps what it prints. */
function listen(edge: EdgeFixture, token: string) {
  const client = spawn(binary, [edge.url().replace('http:', 'ws:'), token], { stdio: ['ignore', 'pipe', 'pipe'] })
  clients.push(client)
  const text = { out: '', err: '' }
  client.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text.out += chunk
  })
  client.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text.err += chunk
  })
  const exited = new Promise<number | null>((resolve) => client.on('close', resolve))
  const lines = (): Record<string, Record<string, unknown>>[] =>
    text.out
      .split('\n')
      .slice(0, -1)
      .map((line) => JSON.parse(line))
  return { lines, text, exited }
}

test('it connects, takes messages of every kind and size, answers them, pings included, and is told why it ends', async ({
  edge,
}) => {
  // The client is another process, which the edge's clock does not wait for.
  await edge.start({ EDGE_PING_INTERVAL_MS: '10000', EDGE_PONG_TIMEOUT_MS: '60000' })
  const { lines, exited } = listen(edge, 'dev:tv-1')
  await expect.poll(() => lines()[0]?.welcome).toMatchObject({ device_id: 'tv-1', limits: { frame_bytes: 65_536 } })
  const sessionId = edge.plane.rows[0]?.sessionId ?? ''
  const router = edge.router()
  const deliveries = [
    deliveryOf({ data: 'é\u{1f4fa}\n' }, { sessionId }),
    // More than one length of a frame's header; the result, sent in fragments, as large.
    deliveryOf({ data: 'x'.repeat(100) }, { sessionId }),
    deliveryOf({ data: 'y'.repeat(40_000), confirm: 'RESULT' }, { sessionId }),
    deliveryOf({}, { sessionId, payload: Buffer.from([0, 255, 10]), contentType: 'application/octet-stream' }),
  ]
  router.send({ deliveries })
  const kinds = await Promise.all(deliveries.map(({ deliveryId }) => router.kinds(deliveryId, 2)))
  expect(kinds).toEqual([
    [WRITTEN, ACKNOWLEDGED],
    [WRITTEN, ACKNOWLEDGED],
    [WRITTEN, RESULT],
    [WRITTEN, ACKNOWLEDGED],
  ])
  expect(lines().flatMap(({ message }) => (message === undefined ? [] : [message.payload]))).toEqual([
    'é\u{1f4fa}\n',
    'x'.repeat(100),
    'y'.repeat(40_000),
    Buffer.from([0, 255, 10]).toString('base64'),
  ])
  const result = router.outcomes.find(({ kind }) => kind === RESULT)?.result
  expect(JSON.parse(String(result?.data))).toBe('y'.repeat(40_000))

  for (let interval = 0; interval < 3; interval++) {
    await edge.pass(10_000)
    // Its answer follows its pong: a pong that is none would have ended the connection.
    const delivery = deliveryOf({ data: interval }, { sessionId })
    router.send({ deliveries: [delivery] })
    expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
  }

  router.send({ closeSessions: [{ closeId: 1, deviceId: 'tv-1', sessionId, reason: CloseReason.DISCONNECTED, detail: 'é' }] })
  expect(await exited).toBe(0)
  expect(lines().at(-1)).toEqual({ close: { code: 4501, reason: 'disconnected by an operator: é' } })
  await expect.poll(() => edge.plane.rows).toEqual([])
})

test('a credential that does not hold is refused in the handshake', async ({ edge }) => {
  await edge.start()
  const { text, exited } = listen(edge, 'junk')
  expect(await exited).toBe(1)
  expect(text.err).toBe('refused with HTTP 401\n')
})
