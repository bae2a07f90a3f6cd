import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Status } from 'nice-grpc-common'
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from 'vitest'
import { connectDevice, type Device } from '../device-sdk/index.ts'
import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { MessageState } from '../gen/push/v1/message.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishMode, PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { serviceTransport } from '../service-kit/client-transport.ts'
import { systemClock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import type { Role } from '../service-kit/peer-identity.ts'
import { openTlsFolder, type TlsFolder } from '../service-kit/testing/tls-fixture.ts'
import type { Tls, TlsFiles } from '../service-kit/tls.ts'
import { ServiceProcess } from './plane/service-process.ts'
import { freePorts } from './servers/ports.ts'

const policy = `
principals:
  billing: { publish: { classes: [USER], devices: ["tv-*"] } }
  fanner: { publish: { classes: [USER], accounts: ["*"], fan_out_max: 1 } }
  anna: { operations: [edges.read, messages.read] }
`

let folder: string
let tls: TlsFolder
let registry: ServiceProcess
let router: ServiceProcess
let edge: ServiceProcess
let device: Device
let addresses: { registry: string; router: string; edge: string }
const others: ServiceProcess[] = []

function environment(prefix: string, files: TlsFiles): Record<string, string> {
  return {
    [`${prefix}_TLS_CERT_FILE`]: files.certificate.path,
    [`${prefix}_TLS_KEY_FILE`]: files.key.path,
    [`${prefix}_TLS_CA_FILE`]: files.authorities.path,
  }
}

function serviceProcess(name: string, kind: 'registry' | 'router' | 'edge', env: Record<string, string>): ServiceProcess {
  const entry = fileURLToPath(new URL(`../${kind}/main.ts`, import.meta.url))
  return new ServiceProcess({ name, entry, readyPhrase: `${kind} ready`, folder, env })
}

const certificates = {
  registry: ['registry', ['role:registry']],
  router: ['router', ['role:router']],
  edge: ['edge', ['role:edge', 'edge:edge-1']],
} as const
const issueFor = (kind: keyof typeof certificates) => tls.issue(certificates[kind][0], certificates[kind][1])

const direct = (deviceId: string) => ({
  message: { target: { $case: 'deviceId', value: deviceId } as const },
  mode: PublishMode.DIRECT,
})
/** Long enough for a machine that does much else. */
const bound = { deadlineMs: 30_000 }

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-security-'))
  tls = await openTlsFolder()
  await writeFile(join(folder, 'policy.yaml'), policy)
  const [a, b, c] = (await freePorts(3)).map((port) => `127.0.0.1:${port}`)
  addresses = { registry: a ?? '', router: b ?? '', edge: c ?? '' }
  registry = serviceProcess('registry', 'registry', {
    REGISTRY_LISTEN_ADDRESS: addresses.registry,
    REGISTRY_STORE: 'sqlite',
    REGISTRY_SQLITE_PATH: join(folder, 'registry.sqlite'),
    ...environment('REGISTRY', await issueFor('registry')),
  })
  router = serviceProcess('router', 'router', {
    ROUTER_LISTEN_ADDRESS: addresses.router,
    ROUTER_REGISTRY_ADDRESSES: addresses.registry,
    ROUTER_QUEUE_PATH: join(folder, 'queue.sqlite'),
    ROUTER_POLICY_FILE: join(folder, 'policy.yaml'),
    ...environment('ROUTER', await issueFor('router')),
  })
  edge = serviceProcess('edge', 'edge', {
    EDGE_NAME: 'edge-1',
    EDGE_LISTEN_ADDRESS: addresses.edge,
    EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
    EDGE_REGISTRY_ADDRESSES: addresses.registry,
    EDGE_ROUTER_ADDRESSES: addresses.router,
    EDGE_AUTH: 'dev',
    EDGE_DRAIN_NOTICE_MS: '0',
    EDGE_DRAIN_MS: '100',
    EDGE_DRAIN_GRACE_MS: '100',
    ...environment('EDGE', await issueFor('edge')),
  })
  await Promise.all([registry, router, edge].map((service) => service.start()))
  device = connectDevice({
    url: `ws://${edge.fact('device_address')}/v1/connect`,
    token: 'dev:tv-1',
    onMessage: () => undefined,
  })
  await vi.waitFor(() => expect(device.state).toBe('open'), { timeout: 60_000 })
  // They start side by side, and each takes a moment to find the others.
  const first = connectGrpc({
    addresses: addresses.router,
    transport: serviceTransport(await tls.open('first', ['role:publisher', 'principal:billing']), false).to('router'),
    log: silentLog,
    clock: systemClock,
  })
  const delivered = async () => {
    const { state } = await first.client(PublishServiceDefinition).publish(direct('tv-1'), bound)
    expect(state).toBe(MessageState.ACKNOWLEDGED)
  }
  await vi.waitFor(delivered, { timeout: 60_000, interval: 200 }).finally(() => first.close())
}, 180_000)

afterAll(async () => {
  await device?.close({ graceMs: 0 })
  await Promise.all([edge, router, registry, ...others].map((service) => service?.running && service.kill()))
  tls?.close()
  await rm(folder, { recursive: true, force: true })
})

/** Clients of one service, shown this certificate. */
function connect(to: Role & keyof typeof addresses, own: Tls) {
  const connection = connectGrpc({
    addresses: addresses[to],
    transport: serviceTransport(own, false).to(to),
    log: silentLog,
    clock: systemClock,
  })
  onTestFinished(() => connection.close())
  return connection
}

async function failureOf(call: Promise<unknown>) {
  try {
    await call
  } catch (error) {
    return callErrorOf(error)
  }
  throw new Error('the call was answered')
}

test('a publisher reaches its device through the whole plane, may not go beyond the policy, and is seen by operators', async () => {
  const publisher = connect('router', await tls.open('billing', ['role:publisher', 'principal:billing']))
  const sent = await publisher.client(PublishServiceDefinition).publish(direct('tv-1'), bound)
  expect(sent.state).toBe(MessageState.ACKNOWLEDGED)
  expect(await failureOf(publisher.client(PublishServiceDefinition).publish(direct('radio-1'), bound))).toMatchObject({
    status: Status.PERMISSION_DENIED,
    reason: 'PERMISSION_MISSING',
    message: expect.stringContaining('billing may not publish to device radio-1'),
  })
  expect(await failureOf(publisher.client(OperationsServiceDefinition).listEdges({}, bound))).toMatchObject({
    reason: 'PERMISSION_MISSING',
  })
  const operator = connect('router', await tls.open('anna', ['role:operator', 'principal:anna']))
  const operations = operator.client(OperationsServiceDefinition)
  // The router hears of the edge by itself, a moment after it has begun.
  await expect.poll(async () => (await operations.listEdges({}, bound)).edges).toMatchObject([{ name: 'edge-1' }])
  const { edges } = await operations.listEdges({}, bound)
  // Passed on to the edge itself, over TLS as well.
  const [{ edgeId } = { edgeId: '' }] = edges
  expect((await operations.getEdgeDrain({ edgeId }, bound)).drain).toMatchObject({ edgeId })
  expect(await failureOf(operations.drainEdge({ edgeId }, bound))).toMatchObject({
    reason: 'PERMISSION_MISSING',
    message: expect.stringContaining('the policy gives it no "edges.drain"'),
  })
  expect(await operator.client(PublishServiceDefinition).getMessage({ messageId: sent.messageId }, bound)).toMatchObject({
    devices: [{ deviceId: 'tv-1' }],
  })
  const stranger = connect('router', await tls.open('news', ['role:publisher', 'principal:news']))
  expect(
    await failureOf(stranger.client(PublishServiceDefinition).getMessage({ messageId: sent.messageId }, bound)),
  ).toMatchObject({
    reason: 'MESSAGE_UNKNOWN',
  })
})

test('a message to an account with more devices than its publisher may reach at once is refused', async () => {
  const family = ['tv-2', 'tv-3'].map((id) =>
    connectDevice({
      url: `ws://${edge.fact('device_address')}/v1/connect`,
      token: `dev:${id}/family`,
      onMessage: () => undefined,
    }),
  )
  onTestFinished(() => Promise.all(family.map((one) => one.close({ graceMs: 0 }))).then(() => undefined))
  const fanner = connect('router', await tls.open('fanner', ['role:publisher', 'principal:fanner']))
  const publish = () =>
    fanner.client(PublishServiceDefinition).publish({ message: { target: { $case: 'accountId', value: 'family' } } }, bound)
  // Until both have logged in there is nothing to refuse.
  await vi.waitFor(
    async () =>
      expect(await failureOf(publish())).toMatchObject({ status: Status.RESOURCE_EXHAUSTED, reason: 'TOO_MANY_TARGETS' }),
    { timeout: 60_000, interval: 200 },
  )
})

test('no service speaks to whoever has no certificate of the plane', async () => {
  for (const address of Object.values(addresses)) {
    const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
    onTestFinished(() => connection.close())
    const failure = await failureOf(connection.client(RegistryServiceDefinition).listEdges({}, bound))
    expect([address, failure.status]).toEqual([address, Status.UNAVAILABLE])
  }
  const foreign = await openTlsFolder()
  onTestFinished(() => foreign.close())
  const own = await foreign.open('router', ['role:router'])
  expect(await failureOf(connect('registry', own).client(RegistryServiceDefinition).listEdges({}, bound))).toMatchObject({
    status: Status.UNAVAILABLE,
  })
})

test('an edge registers, renews and reports under the name in its certificate only', async () => {
  const other = await tls.open('edge-2', ['role:edge', 'edge:edge-2'])
  const client = connect('registry', other).client(RegistryServiceDefinition)
  const renew = (name: string, edgeId: string) =>
    client.renewEdge({ edgeId, name, address: '127.0.0.1:1', connectionLimit: 1 }, bound)
  await renew('edge-2', 'edge-2-abcdefgh')
  for (const call of [
    () => renew('edge-1', 'edge-1-abcdefgh'),
    () => renew('edge-2', 'edge-1-abcdefgh'),
    () => renew('edge-1', 'edge-2-abcdefgh'),
    () => client.register({ edgeId: 'edge-1-abcdefgh', edgeAddress: '127.0.0.1:1', sessions: [] }, bound),
    () => connect('router', other).client(UplinkServiceDefinition).report({ edgeId: 'edge-1-abcdefgh', items: [] }, bound),
  ]) {
    expect(await failureOf(call())).toMatchObject({ status: Status.PERMISSION_DENIED, reason: 'PERMISSION_MISSING' })
  }
})

test('a service with the certificate of another does not start, and says why', async () => {
  const impostor = serviceProcess('impostor', 'edge', {
    EDGE_NAME: 'edge-9',
    EDGE_LISTEN_ADDRESS: '127.0.0.1:0',
    EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
    ...environment('EDGE', await issueFor('edge')),
  })
  others.push(impostor)
  await expect(impostor.start()).rejects.toThrow('it needs the URI push:edge:edge-9 among its subject alternative names')
})

test('new certificates under load: no call fails, new connections use them, and files that do not hold change nothing', async () => {
  const own = await tls.open('load', ['role:publisher', 'principal:billing'])
  const loading = new AbortController()
  const states: MessageState[] = []
  const failures: unknown[] = []
  const load = Promise.all(
    Array.from({ length: 4 }, async () => {
      const client = connect('router', own).client(PublishServiceDefinition)
      while (!loading.signal.aborted) {
        await client.publish(direct('tv-1'), bound).then(
          ({ state }) => states.push(state),
          (error: unknown) => failures.push(error),
        )
      }
    }),
  )
  const services = { registry, router, edge }
  // A look may come while files are being written, and then finds that they do not go together: so these are counted by what they say.
  const told = (phrase: string, problem = '') =>
    Object.values(services).every((service) =>
      service.lines().some((line) => line.phrase === phrase && String(line.facts.problem ?? '').includes(problem)),
    )
  const reload = () => {
    for (const service of Object.values(services)) service.reload()
  }
  try {
    await vi.waitFor(() => expect(states.length).toBeGreaterThan(20), { timeout: 60_000 })
    for (const kind of ['registry', 'router', 'edge'] as const) await issueFor(kind)
    reload()
    await vi.waitFor(() => expect(told('changed files are in force')).toBe(true), { timeout: 60_000 })
    const afterFirst = states.length
    const fresh = connect('router', await tls.open('fresh', ['role:publisher', 'principal:billing']))
    expect(await fresh.client(PublishServiceDefinition).publish(direct('tv-1'), bound)).toMatchObject({
      state: MessageState.ACKNOWLEDGED,
    })
    for (const kind of ['registry', 'router', 'edge']) await writeFile(join(tls.path, `${kind}.crt`), 'nothing')
    reload()
    const refused = 'changed files are not used; what was read before stays in force'
    await vi.waitFor(() => expect(told(refused, 'which holds no certificate')).toBe(true), { timeout: 60_000 })
    const another = connect('router', await tls.open('another', ['role:publisher', 'principal:billing']))
    await another.client(PublishServiceDefinition).publish(direct('tv-1'), bound)
    await vi.waitFor(() => expect(states.length).toBeGreaterThan(afterFirst + 20), { timeout: 60_000 })
  } finally {
    loading.abort()
    await load
  }
  expect(failures).toEqual([])
  expect(new Set(states)).toEqual(new Set([MessageState.ACKNOWLEDGED]))
  expect(device.state).toBe('open')
}, 240_000)
