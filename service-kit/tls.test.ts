import { appendFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:tls'
import { Status } from 'nice-grpc-common'
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import { methodRoles } from './access.ts'
import { isLoopbackList, PlainTextError, serviceTransport } from './client-transport.ts'
import { shiftedClock, systemClock } from './clock.ts'
import { connectGrpc } from './grpc-client.ts'
import { silentLog } from './log.ts'
import { createMetrics } from './metrics.ts'
import { createAuthority } from './testing/certificates.ts'
import { EchoDefinition } from './testing/echo-service.ts'
import { test } from './testing/grpc-fixture.ts'
import { metricValue } from './testing/metric-value.ts'
import { recordingLog } from './testing/recording-log.ts'
import { SteeredClock } from './testing/steered-clock.ts'
import { openTlsFolder, type TlsFolder } from './testing/tls-fixture.ts'
import { openTls, type Tls, type TlsFiles, type TlsOptions } from './tls.ts'
import { plainTextProblems, tlsProblems } from './tls-settings.ts'

let folder: TlsFolder
beforeAll(async () => {
  folder = await openTlsFolder()
})
afterAll(() => folder.close())

const everything = new Map(Object.values(EchoDefinition).map(({ path }) => [path, 'everyone'] as const))
const openFiles = (files: TlsFiles, more: Partial<Pick<TlsOptions, 'check' | 'clock'>> = {}) => {
  const log = recordingLog()
  const metrics = createMetrics()
  // Looked at only when a test says so: never while it writes.
  const tls = openTls({ files, clock: systemClock, log, metrics, periodMs: 3_600_000, ...more })
  onTestFinished(() => tls.close())
  return { tls, log, metrics }
}

test('all three settings or none', () => {
  const none = { tlsCertFile: undefined, tlsKeyFile: undefined, tlsCaFile: undefined }
  expect(tlsProblems('EDGE_', none)).toEqual([])
  expect(tlsProblems('EDGE_', { tlsCertFile: 'a', tlsKeyFile: 'b', tlsCaFile: 'c' })).toEqual([])
  expect(tlsProblems('EDGE_', { ...none, tlsKeyFile: 'b' })).toEqual([
    'EDGE_TLS_CERT_FILE is missing; TLS needs certificate, key and authorities, or none of them',
    'EDGE_TLS_CA_FILE is missing; TLS needs certificate, key and authorities, or none of them',
  ])
})

test('files that cannot be used are told by setting and path', async () => {
  const good = await folder.issue('good', ['role:edge'])
  const other = await folder.issue('other', ['role:edge'])
  const text = (name: string, content: string) => {
    const path = `${folder.path}/${name}`
    writeFileSync(path, content)
    return { setting: 'SAMPLE_TLS_CERT_FILE', path }
  }
  const old = await folder.issue('old', [], { notBeforeMs: Date.now() - 7_200_000, notAfterMs: Date.now() - 3_600_000 })
  const early = await folder.issue('early', [], { notBeforeMs: Date.now() + 3_600_000 })
  expect(() => openFiles({ ...good, key: other.key })).toThrow(
    `SAMPLE_TLS_KEY_FILE names ${other.key.path}, which does not belong to the certificate in ${good.certificate.path}`,
  )
  expect(() => openFiles({ ...good, certificate: text('empty', '') })).toThrow('which holds no certificate')
  expect(() => openFiles({ ...good, authorities: text('noca', 'x') })).toThrow('which holds no certificate')
  expect(() => openFiles({ ...good, key: text('nokey', 'x') })).toThrow('which holds no private key that can be read')
  expect(() =>
    openFiles({ ...good, certificate: text('bad', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n') }),
  ).toThrow('which holds a certificate that cannot be read')
  expect(() => openFiles(old)).toThrow(/whose certificate expired at \d{4}-/)
  expect(() => openFiles(early)).toThrow(/whose certificate is not valid before \d{4}-/)
  expect(() => openFiles({ ...good, key: { setting: 'SAMPLE_TLS_KEY_FILE', path: '/nowhere' } })).toThrow(
    'SAMPLE_TLS_KEY_FILE names /nowhere, which cannot be read (ENOENT)',
  )
  expect(() => openFiles(good, { check: () => 'which is not liked' })).toThrow(
    `SAMPLE_TLS_CERT_FILE names ${good.certificate.path}, which is not liked`,
  )
})

test('a server is believed by the role in its certificate, whatever the host; another role, another edge, another authority is not', async ({
  grpc,
}) => {
  const edge = await folder.open('edge', ['role:edge', 'edge:a'], {})
  const router = await folder.open('router', ['role:router'])
  const server = await grpc.serve({}, { tls: edge, roles: everything })
  const call = (transport: ReturnType<ReturnType<typeof serviceTransport>['to']>) =>
    grpc.connect(server.address, { transport }).client(EchoDefinition).unary({ text: 'hi' }, { deadlineMs: 10_000 })
  const from = serviceTransport(router, false)
  expect(await call(from.to('edge'))).toEqual({ text: 'hi' })
  expect(await call(from.toEdge('a-12345678'))).toEqual({ text: 'hi' })
  await expect(call(from.to('registry'))).rejects.toThrow("the server's certificate is not that of a registry")
  await expect(call(from.toEdge('b-12345678'))).rejects.toThrow("the server's certificate is not that of edge b")
  const stranger = await createAuthority(Date.now())
  const { tls } = openFiles(
    folder.write('stranger', await stranger.issue({ commonName: 'x', uris: ['push:role:edge'] }), stranger.certificate),
  )
  await expect(call(serviceTransport(tls, false).to('edge'))).rejects.toThrow(/certificate/)
})

test('without a certificate of our authorities there is no connection', async ({ grpc }) => {
  const tls = await folder.open('alone', ['role:edge'])
  const { address } = await grpc.serve({}, { tls, roles: everything })
  await expect(grpc.connect(address).client(EchoDefinition).unary({ text: 'hi' }, { deadlineMs: 10_000 })).rejects.toMatchObject({
    code: Status.UNAVAILABLE,
  })
  const [host = '', port] = address.split(':')
  // Whoever presents none is cut off, though TLS 1.3 lets it believe for a moment that it is in.
  await new Promise((resolve) => {
    const socket = connect({ host, port: Number(port), ca: folder.authority.certificate, ALPNProtocols: ['h2'] })
    onTestFinished(() => void socket.destroy())
    socket.on('error', resolve).on('close', resolve).resume()
  })
})

test('new files are used by new connections; those that are open stay, and no call fails', async ({ grpc }) => {
  const files = await folder.issue('rotating', ['role:edge'])
  const { tls, metrics } = openFiles(files)
  const client = await folder.open('client', ['role:router'])
  const { address } = await grpc.serve({}, { tls, roles: everything })
  const connectNew = () => grpc.connect(address, { transport: serviceTransport(client, false).to('edge') }).client(EchoDefinition)
  const before = connectNew()
  const stream = before.bidi(
    (async function* () {
      for (let sent = 0; sent < 40; sent++) {
        yield { text: String(sent) }
        await systemClock.sleep(5)
      }
    })(),
  )
  const echoed = (async () => {
    const texts: string[] = []
    for await (const { text } of stream) texts.push(text)
    return texts
  })()
  expect(await before.unary({ text: 'before' })).toEqual({ text: 'before' })
  const [host = '', port] = address.split(':')
  const served = () =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host, port: Number(port), rejectUnauthorized: false, ALPNProtocols: ['h2'] }, () => {
        resolve(socket.getPeerX509Certificate()?.serialNumber ?? '')
        socket.destroy()
      })
      socket.on('error', reject)
    })
  const first = await served()
  await folder.issue('rotating', ['role:edge'])
  await tls.look()
  expect(await served()).not.toBe(first)
  expect(await connectNew().unary({ text: 'after' })).toEqual({ text: 'after' })
  expect(await before.unary({ text: 'still' })).toEqual({ text: 'still' })
  expect(await echoed).toHaveLength(40)
  expect(await metricValue(metrics, 'push_file_reloads_total', { file: 'tls certificate', result: 'taken' })).toBe(1)
})

test('a client whose files are new shows the new certificate on its next connection', async ({ grpc }) => {
  const server = await folder.open('server', ['role:registry'])
  const files = await folder.issue('moving', ['role:edge', 'edge:before'])
  const { tls } = openFiles(files)
  const names: string[] = []
  const { address } = await grpc.serve(
    {
      async unary(request, context) {
        names.push(...(context.caller.edgeNames ?? []))
        return request
      },
    },
    { tls: server, roles: new Map([[EchoDefinition.unary.path, ['edge']]]) },
  )
  const call = () => {
    const connection = connectGrpc({
      addresses: address,
      log: silentLog,
      clock: systemClock,
      transport: serviceTransport(tls, false).to('registry'),
    })
    return connection
      .client(EchoDefinition)
      .unary({ text: '' }, { deadlineMs: 10_000 })
      .finally(() => connection.close())
  }
  await call()
  await folder.issue('moving', ['role:edge', 'edge:after'])
  await tls.look()
  await call()
  expect(names).toEqual(['before', 'after'])
})

test('bad new files keep the old ones in force, are told and counted; the metric tells when the certificate expires', async () => {
  const notAfterMs = Math.floor(Date.now() / 1_000) * 1_000 + 3_600_000
  const files = await folder.issue('kept', ['role:edge'], { notAfterMs })
  const { tls, log, metrics } = openFiles(files, {
    check: ({ roles }) => (roles.includes('edge') ? undefined : 'which is not that of an edge'),
  })
  const expiry = () => metricValue(metrics, 'push_tls_certificate_expire_time_seconds')
  expect(await expiry()).toBe(notAfterMs / 1_000)
  appendFileSync(files.key.path, 'x')
  writeFileSync(files.certificate.path, 'x')
  await tls.look()
  await folder.issue('kept', ['role:router'])
  await tls.look()
  expect(tls.identity.roles).toEqual(['edge'])
  expect(await metricValue(metrics, 'push_file_reloads_total', { file: 'tls certificate', result: 'refused' })).toBe(2)
  expect(log.entries.filter(({ level }) => level === 'error').map(({ facts }) => facts.problem)).toEqual([
    expect.stringContaining('which holds no certificate'),
    expect.stringContaining('not that of an edge'),
  ])
  expect(JSON.stringify(log.entries)).not.toContain('PRIVATE')
  await folder.issue('kept', ['role:edge'], { notAfterMs: notAfterMs + 1_000 })
  await tls.look()
  expect(await expiry()).toBe(notAfterMs / 1_000 + 1)
})

test('a certificate that nobody renews is told when a quarter of its life is left, and when it has expired', async () => {
  const clock = new SteeredClock()
  const life = { notBeforeMs: clock.now(), notAfterMs: clock.now() + 400_000 }
  const { tls, log } = openFiles(await folder.issue('ending', ['role:edge'], life), { clock })
  const told = () =>
    log.entries.filter(({ phrase }) => phrase.startsWith('tls certificate')).map(({ level, phrase }) => `${level}: ${phrase}`)
  await clock.advance(299_000)
  expect(told()).toEqual([])
  await clock.advance(2_000)
  expect(told()).toEqual(['warn: tls certificate expires soon, and no newer one is there'])
  expect(log.entries[0]?.facts).toMatchObject({ path: `${folder.path}/ending.crt`, expire_time: '2027-01-15T08:06:40.000Z' })
  await clock.advance(100_000)
  expect(told().at(-1)).toMatch(/^error: tls certificate has expired/)

  await folder.issue('ending', ['role:edge'], { notBeforeMs: clock.now(), notAfterMs: clock.now() + 400_000 })
  await tls.look()
  await clock.advance(299_000)
  await folder.issue('ending', ['role:edge'], { notBeforeMs: clock.now(), notAfterMs: clock.now() + 400_000 })
  await tls.look()
  await clock.advance(200_000)
  expect(told()).toHaveLength(2)
  tls.close()
  expect(clock.pendingTimers).toBe(0)
})

test('an expired certificate is refused by the other side; the call says so', async ({ grpc }) => {
  // Its own clock is behind, so that it takes what nobody else does.
  const slow = shiftedClock(systemClock, -7_200_000)
  const order = { notBeforeMs: Date.now() - 10_800_000, notAfterMs: Date.now() - 3_600_000 }
  const { tls: expired } = openFiles(await folder.issue('expired', ['role:edge'], order), { clock: slow })
  const good = await folder.open('unexpired', ['role:edge', 'role:router'])
  const call = async (served: Tls, shown: Tls) => {
    const { address } = await grpc.serve({}, { tls: served, roles: everything })
    const client = grpc.connect(address, { transport: serviceTransport(shown, false).to('edge') }).client(EchoDefinition)
    return client.unary({ text: 'hi' }, { deadlineMs: 10_000 })
  }
  await expect(call(expired, good)).rejects.toMatchObject({
    code: Status.UNAVAILABLE,
    message: expect.stringContaining('certificate has expired'),
  })
  await expect(call(good, expired)).rejects.toMatchObject({ code: Status.UNAVAILABLE })
  expect(await call(good, good)).toEqual({ text: 'hi' })
})

test('plain text goes to this machine only, unless it is allowed', () => {
  expect(isLoopbackList('127.0.0.1:1,localhost:2,[::1]:3')).toBe(true)
  expect(isLoopbackList('127.0.0.1:1,10.0.0.1:2')).toBe(false)
  expect(isLoopbackList('dns:///registry:7401')).toBe(false)
  const to = (addresses: string, insecure: boolean) => {
    const transport = serviceTransport(undefined, insecure).to('registry')
    connectGrpc({ addresses, log: silentLog, clock: systemClock, transport }).close()
  }
  expect(() => to('10.0.0.1:7401', false)).toThrow(PlainTextError)
  expect(() => to('10.0.0.1:7401', true)).not.toThrow()
  expect(() => to('127.0.0.1:7401', false)).not.toThrow()
})

test('a service listens and dials in plain text on this machine only, unless it is allowed or protected', () => {
  const config = { tlsCertFile: undefined, tlsKeyFile: undefined, tlsCaFile: undefined, insecure: false }
  const addresses = {
    protected: {
      EDGE_LISTEN_ADDRESS: '0.0.0.0:1',
      EDGE_ROUTER_ADDRESSES: '127.0.0.1:1,10.0.0.1:2',
      EDGE_REGISTRY_ADDRESSES: '[::1]:0',
    },
    plain: { EDGE_METRICS_ADDRESS: '0.0.0.0:3', EDGE_DEVICE_LISTEN_ADDRESS: undefined },
  }
  const names = (more: object) =>
    plainTextProblems('EDGE_', addresses, { ...config, ...more }).map((problem) => problem.split(' ')[0])
  expect(names({})).toEqual(['EDGE_LISTEN_ADDRESS', 'EDGE_ROUTER_ADDRESSES', 'EDGE_METRICS_ADDRESS'])
  expect(names({ tlsCertFile: 'a' })).toEqual(['EDGE_METRICS_ADDRESS'])
  expect(names({ insecure: true })).toEqual([])
})

test('a server with TLS and without a role table does not start', async ({ grpc }) => {
  const tls = await folder.open('tableless', ['role:edge'])
  await expect(grpc.serve({}, { tls })).rejects.toThrow(TypeError)
  expect(methodRoles({ fullName: 'test.Echo', methods: { unary: { name: 'Unary' } } }, { unary: ['edge'] })).toEqual([
    ['/test.Echo/Unary', ['edge']],
  ])
})
