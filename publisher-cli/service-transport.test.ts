import { writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { methodRoles, type TokenVerifier } from '../service-kit/access.ts'
import { systemClock } from '../service-kit/clock.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { openTlsFolder, type TlsFolder } from '../service-kit/testing/tls-fixture.ts'
import { openTls } from '../service-kit/tls.ts'
import { ExitCode } from './exit-codes.ts'
import { run } from './testing/run-here.ts'
import { startTestService } from './testing/test-service.ts'

let folder: TlsFolder
let address: string
let ca: string
let close: () => Promise<void>

const roles = new Map(methodRoles(OperationsServiceDefinition, { ...noRoles(), listEdges: ['operator'] }))
const tokens: TokenVerifier = {
  verify: async (token) =>
    token === 'good'
      ? { ok: true, principal: 'anna', roles: ['operator'], expiresAtMs: Date.now() + 60_000 }
      : { ok: false, verdict: 'invalid', detail: 'the token does not hold' },
}

function noRoles() {
  const names = Object.keys(OperationsServiceDefinition.methods) as (keyof typeof OperationsServiceDefinition.methods)[]
  return Object.fromEntries(names.map((name) => [name, []])) as unknown as Record<(typeof names)[number], []>
}

async function serve(uris: string[], more: { hosts?: string[] } = {}) {
  const pair = await folder.issue(`router-${uris.length}-${more.hosts?.length}`, uris, more)
  const tls = openTls({ files: pair, clock: systemClock, log: silentLog, metrics: createMetrics() })
  const service = await startTestService({ listEdges: () => ({ edges: [], nextPageToken: '' }) }, { tls, roles, tokens })
  return {
    address: service.address,
    async close() {
      await service.close()
      tls.close()
    },
  }
}

beforeAll(async () => {
  folder = await openTlsFolder()
  ca = (await folder.issue('someone', ['role:operator', 'principal:anna'])).authorities.path
  await folder.issue('publisher', ['role:publisher', 'principal:billing'])
  ;({ address, close } = await serve(['role:router'], { hosts: ['elsewhere.example'] }))
})
afterAll(async () => {
  await close()
  folder.close()
})

const list = (...options: string[]) => run(['edges', 'list', '--address', address, ...options])
const filesOf = (name: string) => ['--cert', `${folder.path}/${name}.crt`, '--key', `${folder.path}/${name}.key`]
const tokenFile = (token: string) => {
  const path = `${folder.path}/token-${token.trim()}`
  writeFileSync(path, token)
  return ['--token-file', path]
}

test('with a certificate one is who it names: an operator may, a publisher is refused with 3', async () => {
  expect(await list('--ca', ca, ...filesOf('someone'))).toMatchObject({ code: ExitCode.DONE })
  expect(await list('--ca', ca, ...filesOf('publisher'))).toMatchObject({
    code: ExitCode.NOT_PERMITTED,
    stderr: [expect.stringContaining('PERMISSION_MISSING: billing may not call push.v1.OperationsService/ListEdges')],
  })
})

test('a token goes without a certificate; none, or a wrong one, is refused with 3', async () => {
  expect(await list('--ca', ca, ...tokenFile('good\n'))).toMatchObject({ code: ExitCode.DONE })
  expect(await list('--ca', ca, ...tokenFile('bad'))).toMatchObject({
    code: ExitCode.NOT_PERMITTED,
    stderr: ['UNAUTHENTICATED: the token does not hold'],
  })
  expect(await list('--ca', ca)).toMatchObject({
    code: ExitCode.NOT_PERMITTED,
    stderr: [expect.stringMatching(/^UNAUTHENTICATED/)],
  })
})

test('the environment says the same as the options', async () => {
  const env = { PUSH_CA: ca, PUSH_CERT: `${folder.path}/someone.crt`, PUSH_KEY: `${folder.path}/someone.key` }
  expect(await run(['edges', 'list', '--address', address], { env })).toMatchObject({ code: ExitCode.DONE })
})

test('a server of another authority, or with another name and no role, is not believed', async () => {
  const other = await openTlsFolder()
  onTestFinished(() => other.close())
  const { authorities } = await other.issue('x', [])
  expect(await list('--ca', authorities.path, ...tokenFile('good'))).toMatchObject({ code: ExitCode.UNAVAILABLE })
  expect(await list('--tls', ...tokenFile('good'))).toMatchObject({ code: ExitCode.UNAVAILABLE })
  const proxy = await serve([], { hosts: ['elsewhere.example'] })
  onTestFinished(proxy.close)
  expect(await run(['edges', 'list', '--address', proxy.address, '--ca', ca, ...tokenFile('good')])).toMatchObject({
    code: ExitCode.UNAVAILABLE,
  })
  const named = await serve([], { hosts: ['127.0.0.1', 'localhost'] })
  onTestFinished(named.close)
  expect(await run(['edges', 'list', '--address', named.address, '--ca', ca, ...tokenFile('good')])).toMatchObject({
    code: ExitCode.DONE,
  })
})

test.each([
  [['--address', '10.0.0.1:7400'], 'calls to 10.0.0.1:7400 would be plain text'],
  [['--cert', 'a'], '--cert: a cannot be read (ENOENT)'],
  [['--ca', '/nowhere'], '--ca: /nowhere cannot be read (ENOENT)'],
])('%s is told as a mistake', async (options, words) => {
  expect(await list(...options)).toMatchObject({ code: ExitCode.USAGE, stderr: [expect.stringContaining(words)] })
})

test('files that do not go together, and an empty token, are told as mistakes', async () => {
  const [cert = '', crt = '', key = '', keyFile = ''] = filesOf('someone')
  for (const [options, words] of [
    [['--ca', ca, cert, crt], '--cert and --key go together'],
    [[cert, crt, key, keyFile], '--cert needs --ca'],
    [['--ca', ca, cert, crt, key, `${folder.path}/publisher.key`], 'cannot be used'],
    [['--ca', ca, ...tokenFile('')], 'holds no token'],
    [['--address', '10.0.0.1:7400', '--insecure', ...tokenFile('good')], 'a token is not sent in plain text to another machine'],
  ] as const) {
    expect(await list(...options)).toMatchObject({ code: ExitCode.USAGE, stderr: [expect.stringContaining(words)] })
  }
})
