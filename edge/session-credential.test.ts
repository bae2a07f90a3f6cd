import { SignJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { ClientFrame, ServerFrame } from '../gen/push/v1/device.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import type { Credential, Identity, IdentityVerdict } from './auth/identity.ts'
import { closeKinds } from './close-codes.ts'
import { protobufCodec } from './protobuf-codec.ts'
import { test as edgeTest } from './testing/edge-fixture.ts'
import { fakeEdge } from './testing/fake-session.ts'

/** Verdicts by token; a token that is not known has one that never comes. */
function identityOf(verdicts: Record<string, IdentityVerdict>) {
  const shown: Credential[] = []
  const identity: Identity = {
    authenticate(credential) {
      shown.push(credential)
      const verdict = verdicts[credential.text]
      return verdict === undefined ? new Promise(() => {}) : Promise.resolve(verdict)
    },
  }
  return { identity, shown }
}

const startMs = 1_800_000_000_000
const believed = (more: Partial<IdentityVerdict & { ok: true }> = {}): IdentityVerdict => ({
  ok: true,
  deviceId: 'tv-1',
  accountId: 'anna',
  expiresAtMs: startMs + 100_000,
  ...more,
})

/** An open session of tv-1 with account anna, whose credential ends after 20 s. */
function edgeWith(verdicts: Record<string, IdentityVerdict>, more: { credentialEndsAtMax?: number } = {}) {
  const { identity, shown } = identityOf(verdicts)
  const edge = fakeEdge({ lifetimeMs: 1e9, lifetimeJitterMs: 0, pingIntervalMs: 1e9 }, { identity })
  const { session, transport } = edge.open({ accountId: 'anna', credentialEndsAt: 20_000, ...more })
  return {
    ...edge,
    session,
    transport,
    shown,
    show: async (token: string) => {
      session.receive(JSON.stringify({ type: 'credential', token }))
      await edge.clock.advance(0)
    },
    counted: (result: string) => metricValue(edge.metrics, 'push_edge_credential_refreshes_total', { result }),
  }
}

test('welcome says when the credential ends, and says nothing where it does not', () => {
  const { transport } = edgeWith({})
  expect(transport.ofType('welcome')).toMatchObject([{ credential_expire_time: (startMs + 20_000) * 1_000 }])
  const [endless] = fakeEdge().open().transport.ofType('welcome')
  expect(endless).not.toHaveProperty('credential_expire_time')
  const [beyond] = fakeEdge().open({ credentialEndsAt: 1e300 }).transport.ofType('welcome')
  expect(beyond).not.toHaveProperty('credential_expire_time')
})

test('a new credential keeps the session until it ends itself', async () => {
  const { show, transport, clock, counted, shown } = edgeWith({ next: believed() })
  await clock.advance(15_000)
  await show('next')
  expect(shown).toEqual([{ text: 'next', from: 'frame' }])
  expect(transport.ofType('credential_accepted')).toEqual([
    { type: 'credential_accepted', expire_time: (startMs + 100_000) * 1_000 },
  ])
  await clock.advance(84_000)
  expect(transport.closedWith).toBeUndefined()
  await clock.advance(1_200)
  expect(transport.closedWith).toBe(closeKinds.credentialExpired)
  expect(await counted('accepted')).toBe(1)
})

test('one that ends sooner than the old one counts as well, and one that does not end lasts', async () => {
  const sooner = edgeWith({ next: believed({ expiresAtMs: startMs + 5_000 }) })
  await sooner.show('next')
  await sooner.clock.advance(5_200)
  expect(sooner.transport.closedWith).toBe(closeKinds.credentialExpired)
  const endless = edgeWith({ next: believed({ expiresAtMs: undefined }) })
  await endless.show('next')
  expect(endless.transport.ofType('credential_accepted')).toEqual([{ type: 'credential_accepted' }])
  await endless.clock.advance(1_000_000)
  expect(endless.transport.closedWith).toBeUndefined()
})

test('no new credential keeps a session longer than its client certificate lasts', async () => {
  const { show, transport, clock } = edgeWith({ next: believed() }, { credentialEndsAtMax: 30_000 })
  await show('next')
  expect(transport.ofType('credential_accepted')).toMatchObject([{ expire_time: (startMs + 30_000) * 1_000 }])
  await clock.advance(30_200)
  expect(transport.closedWith).toBe(closeKinds.credentialExpired)
})

describe('a verdict against the new credential ends the session with 4500', () => {
  test.each([
    ['another device', believed({ deviceId: 'tv-2' }), 'another_identity'],
    ['another account', believed({ accountId: 'bert' }), 'another_identity'],
    ['no account any more', believed({ accountId: undefined }), 'another_identity'],
    ['one that does not hold', { ok: false, verdict: 'invalid', detail: 'no' } as const, 'invalid'],
  ])('%s', async (_what, verdict, result) => {
    const { show, transport, counted } = edgeWith({ next: verdict })
    await show('next')
    expect(transport.ofType('error')).toMatchObject([{ reason: 'UNAUTHENTICATED' }])
    expect(transport.closedWith).toBe(closeKinds.authenticationFailed)
    expect(await counted(result)).toBe(1)
  })
})

describe('what is no verdict against it leaves the session with the credential it has', () => {
  test.each([
    ['expired', 'CREDENTIAL_EXPIRED'],
    ['unavailable', 'OVERLOADED'],
  ] as const)('%s', async (verdict, reason) => {
    const { show, transport, clock, counted } = edgeWith({ next: { ok: false, verdict, detail: 'words' } })
    await show('next')
    expect(transport.ofType('error')).toEqual([{ type: 'error', reason, message: 'words' }])
    expect(await counted(verdict)).toBe(1)
    await clock.advance(19_500)
    expect(transport.closedWith).toBeUndefined()
    await clock.advance(700)
    expect(transport.closedWith).toBe(closeKinds.credentialExpired)
  })
})

test('a device may not show new ones as often as it likes, nor a second one while the first is judged', async () => {
  const { show, transport, clock, counted, shown } = edgeWith({ next: believed({ expiresAtMs: undefined }) })
  await show('next')
  await show('next')
  await clock.advance(9_900)
  await show('next')
  expect(shown).toHaveLength(1)
  expect(transport.ofType('error').map(({ reason }) => reason)).toEqual(['RATE_EXCEEDED', 'RATE_EXCEEDED'])
  await clock.advance(200)
  await show('never judged')
  await clock.advance(60_000)
  await show('next')
  expect(shown.map(({ text }) => text)).toEqual(['next', 'never judged'])
  expect(await counted('too_often')).toBe(3)
  expect(transport.closedWith).toBeUndefined()
})

test('a verdict that comes when the session has ended changes nothing', async () => {
  const late = Promise.withResolvers<IdentityVerdict>()
  const edge = fakeEdge({}, { identity: { authenticate: () => late.promise } })
  const { session, transport } = edge.open({ accountId: 'anna' })
  session.receive(JSON.stringify({ type: 'credential', token: 'next' }))
  session.handle({ type: 'end', kind: closeKinds.drain })
  late.resolve(believed({ deviceId: 'tv-2' }))
  await edge.clock.advance(0)
  expect(transport.closedWith).toBe(closeKinds.drain)
  expect(await metricValue(edge.metrics, 'push_edge_credential_refreshes_total', { result: 'session_ended' })).toBe(1)
})

test('where sessions have no credential that could be replaced, one is an invalid frame', () => {
  const { session, transport } = fakeEdge({}, { identity: undefined }).open()
  session.receive(JSON.stringify({ type: 'credential', token: 'next' }))
  expect(transport.ofType('error')).toMatchObject([{ reason: 'INVALID_FRAME' }])
})

test('an identity that breaks its promise ends this session alone, and the defect is told', async () => {
  const edge = fakeEdge({}, { identity: { authenticate: () => Promise.reject(new Error('broken')) } })
  const { session, transport } = edge.open()
  session.receive(JSON.stringify({ type: 'credential', token: 'next' }))
  await edge.clock.advance(0)
  expect(transport.closedWith).toBe(closeKinds.internalError)
  expect(edge.failures).toMatchObject([{ message: 'broken' }])
})

test('both frames have a Protobuf form', () => {
  const text = Buffer.from(ClientFrame.encode({ frame: { $case: 'credential', value: { token: 'next' } } }).finish())
  expect(protobufCodec.decode(text)).toEqual({ ok: true, frame: { type: 'credential', token: 'next' } })
  const bytes = protobufCodec.encodeControl({ type: 'credential_accepted', expire_time: 1_800_000_000_000_000 })
  expect(ServerFrame.decode(bytes).frame).toEqual({
    $case: 'credential_accepted',
    value: { expire_time: 1_800_000_000_000_000 },
  })
})

describe('over a real connection, with tokens', () => {
  const secret = 's'.repeat(32)
  const env = { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: secret }
  const tokenOf = (claims: Record<string, unknown>) =>
    new SignJWT({ sub: 'tv-1', account: 'anna', ...claims }).setProtectedHeader({ alg: 'HS256' }).sign(Buffer.from(secret))

  edgeTest('a session outlives its first token by a second one, and no token is ever logged', async ({ edge }) => {
    await edge.start(env)
    const nowSeconds = edge.clock.now() / 1_000
    const tokens = await Promise.all([30, 90].map((seconds) => tokenOf({ exp: nowSeconds + seconds })))
    const device = await edge.open(tokens[0] ?? '')
    device.send({ type: 'credential', token: tokens[1] })
    expect(await device.next('credential_accepted')).toEqual({
      type: 'credential_accepted',
      // The clocks of issuer and edge may be 5 s apart.
      expire_time: (startMs + 95_000) * 1_000,
    })
    await edge.pass(60_000)
    expect(device.webSocket.readyState).toBe(device.webSocket.OPEN)
    await edge.pass(36_000)
    expect(await device.closed).toMatchObject({ code: 4004 })
    const logged = JSON.stringify(edge.log.entries)
    for (const token of tokens) for (const part of token.split('.').slice(1)) expect(logged).not.toContain(part)
  })

  edgeTest('a token of another device: error, 4500, and nothing of it in log or reason', async ({ edge }) => {
    await edge.start(env)
    const device = await edge.open(await tokenOf({ exp: edge.clock.now() / 1_000 + 60 }))
    const foreign = await tokenOf({ sub: 'topsecret-device', exp: edge.clock.now() / 1_000 + 60 })
    device.send({ type: 'credential', token: foreign })
    expect(await device.next('error')).toMatchObject({ reason: 'UNAUTHENTICATED' })
    const { code, reason } = await device.closed
    expect(code).toBe(4500)
    expect(reason + JSON.stringify([device.frames, edge.log.entries])).not.toMatch(/topsecret|eyJ/)
  })
})
