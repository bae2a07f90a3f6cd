import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test, vi } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { test as edgeTest } from '../testing/edge-fixture.ts'
import { openIdentityModule } from './identity-module.ts'

const folder = mkdtempSync(join(tmpdir(), 'push-identity-'))
afterAll(() => rmSync(folder, { recursive: true }))

function written(name: string, source: string): string {
  const path = join(folder, name)
  writeFileSync(path, source)
  return path
}

const open = (path: string) => openIdentityModule(path, { clock: systemClock, log: recordingLog() })

test.each([
  ['there is none', () => join(folder, 'nowhere.mjs'), /cannot be loaded/],
  ['it is no JavaScript', () => written('broken.mjs', 'export default ('), /cannot be loaded/],
  ['it exports nothing', () => written('empty.mjs', 'export const a = 1'), /no function/],
  [
    'it does not open',
    () => written('throws.mjs', 'export default () => { throw new Error("no key") }'),
    /did not open \(no key\)/,
  ],
  ['it gives nothing', () => written('nothing.mjs', 'export default () => undefined'), /authenticate/],
  ['it gives no identity', () => written('other.mjs', 'export default async () => ({ authenticate: 1 })'), /authenticate/],
])('a module keeps the edge from starting when %s', async (_what, pathOf, words) => {
  const path = pathOf()
  const failure = await open(path).catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(StartError)
  expect(String(failure)).toMatch(words)
  expect(String(failure)).toContain(`EDGE_AUTH_MODULE names ${path}`)
})

edgeTest('an edge believes whom its module believes, and closes it when it stops', async ({ edge }) => {
  const closed = vi.fn()
  Object.assign(globalThis, { moduleClosed: closed })
  const source = `export default ({ clock }) => ({
    async authenticate({ text, from }) {
      if (text === 'sesame') return { ok: true, deviceId: 'cave-' + from, expiresAtMs: clock.now() + 30_000 }
      if (text === 'late') return new Promise(() => {})
      if (text === 'broken') throw new Error('defect')
      return { ok: false, verdict: 'invalid', detail: 'no' }
    },
    close: () => globalThis.moduleClosed(),
  })`
  await edge.start({ EDGE_AUTH: 'module', EDGE_AUTH_MODULE: written('cave.mjs', source) })
  const inside = await edge.open('sesame')
  expect(inside.frames[0]).toMatchObject({ device_id: 'cave-header', credential_expire_time: expect.any(Number) })
  expect(await edge.connect('thief').closed).toMatchObject({ code: 1006 })
  expect(await edge.metric('push_edge_refusals_total', { reason: 'unauthenticated' })).toBe(1)
  edge.connect('broken')
  await expect
    .poll(() => edge.metric('push_edge_refusals_total', { reason: 'identity_unavailable' }), { timeout: 10_000 })
    .toBe(1)
  edge.connect('late')
  await expect.poll(() => edge.metric('push_edge_handshakes'), { timeout: 10_000 }).toBe(1)
  await edge.pass(6_000)
  await expect
    .poll(() => edge.metric('push_edge_refusals_total', { reason: 'identity_unavailable' }), { timeout: 10_000 })
    .toBe(2)
  const stopping = edge.stop()
  // The session that is left has its slot and its grace, on the steered clock.
  const closes = async () => {
    await edge.pass(1_000)
    return closed.mock.calls.length
  }
  await expect.poll(closes, { timeout: 20_000, interval: 5 }).toBe(1)
  await stopping
  expect(closed).toHaveBeenCalledOnce()
})

test('the example looks opaque tokens up', async () => {
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => {
      body += chunk
    })
    request.on('end', () => {
      const { token } = JSON.parse(body)
      if (token === 'good') response.end(JSON.stringify({ device: 'tv-1', account: 'anna', expires_in: 60 }))
      else response.writeHead(token === 'bad' ? 404 : 500).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const bound = server.address()
  vi.stubEnv('TOKEN_SERVICE_URL', `http://127.0.0.1:${typeof bound === 'object' ? bound?.port : 0}/`)
  try {
    const identity = await open('examples/identity-module/opaque-tokens.ts')
    const judge = (text: string) => identity.authenticate({ text, from: 'header' })
    expect(await judge('good')).toMatchObject({ ok: true, deviceId: 'tv-1', accountId: 'anna', expiresAtMs: expect.any(Number) })
    expect(await judge('bad')).toMatchObject({ ok: false, verdict: 'invalid' })
    expect(await judge('odd')).toMatchObject({ ok: false, verdict: 'unavailable' })
  } finally {
    vi.unstubAllEnvs()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})
