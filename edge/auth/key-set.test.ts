import { UnsecuredJWT } from 'jose'
import { test as base, describe, expect } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { issuerKey, serveKeys, tokenRules } from '../testing/tokens.ts'
import { publicKeyAlgorithms } from './identity-settings.ts'
import { tokenIdentity } from './jwt.ts'
import { type KeySet, openKeySet } from './key-set.ts'

const first = await issuerKey('first')
const second = await issuerKey('second')

/** An issuer with one key, and an identity that fetches keys every 10 min, at most every 30 s. */
const test = base.extend<{ plane: Awaited<ReturnType<typeof openPlane>> }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads what a fixture needs from this pattern.
  plane: async ({}, use) => {
    const plane = await openPlane()
    await use(plane)
    await plane.close()
  },
})

async function openPlane() {
  const served = await serveKeys([first.jwk])
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const sets: KeySet[] = []
  const claims = { sub: 'tv-1', account: 'anna', exp: clock.now() / 1_000 + 100_000 }
  return {
    ...served,
    clock,
    log,
    claims,
    open(algorithms: readonly string[] = ['ES256'], path = '') {
      const keys = openKeySet({
        url: served.url + path,
        refreshMs: 600_000,
        cooldownMs: 30_000,
        timeoutMs: 4_000,
        clock,
        random: seededRandom(1),
        log,
        metrics: createEdgeMetrics(metrics),
      })
      sets.push(keys)
      const identity = tokenIdentity(tokenRules(clock), algorithms, keys.keyOf)
      const judge = (token: string) => identity.authenticate({ text: token, from: 'header' })
      return { keys, judge, judged: async (key: typeof first) => judge(await key.sign(claims)) }
    },
    lookups: (result: string) => metricValue(metrics, 'push_edge_jwks_lookups_total', { result }),
    fetches: (result: string) => metricValue(metrics, 'push_edge_jwks_fetches_total', { result }),
    metric: (name: string) => metricValue(metrics, name),
    async close() {
      for (const keys of sets) keys.close()
      await Promise.all(sets.map((keys) => keys.look()))
      await served.close()
      expect(clock.pendingTimers, 'timers left over').toBe(0)
    },
  }
}

const believed = { ok: true, deviceId: 'tv-1', accountId: 'anna' }
const unavailable = { ok: false, verdict: 'unavailable' }
const invalid = { ok: false, verdict: 'invalid' }

test('the keys are fetched once for all tokens, also when many come before them', async ({ plane }) => {
  const { judged } = plane.open()
  const verdicts = await Promise.all([judged(first), judged(first), judged(first)])
  expect(verdicts).toMatchObject([believed, believed, believed])
  expect(await judged(first)).toMatchObject(believed)
  expect(plane.issuer.fetches).toBe(1)
  expect(await plane.metric('push_edge_jwks_keys')).toBe(1)
  expect(await plane.metric('push_edge_jwks_fetch_time_seconds')).toBe(plane.clock.now() / 1_000)
})

test('a new key of the issuer is fetched when the first token names it, at most every 30 s; until then that token is no bad one', async ({
  plane,
}) => {
  const { judged } = plane.open()
  expect(await judged(first)).toMatchObject(believed)
  plane.show([first.jwk, second.jwk])
  expect(await judged(second)).toMatchObject(unavailable)
  expect(plane.issuer.fetches).toBe(1)
  await plane.clock.advance(30_000)
  expect(await judged(second)).toMatchObject(believed)
  expect(await judged(first)).toMatchObject(believed)
  expect(plane.issuer.fetches).toBe(2)
  expect([await plane.lookups('cooldown'), await plane.lookups('fetched'), await plane.lookups('found')]).toEqual([1, 2, 1])
})

test('a key that the issuer does not have is a verdict, and whoever names keys at random makes nobody fetch all the time', async ({
  plane,
}) => {
  const { judged } = plane.open()
  await judged(first)
  await plane.clock.advance(30_000)
  expect(await judged(second)).toMatchObject(invalid)
  for (let index = 0; index < 5; index++) expect(await judged(second)).toMatchObject(unavailable)
  expect(plane.issuer.fetches).toBe(2)
  expect(await plane.lookups('unknown')).toBe(1)
})

test('keys are fetched again now and then: one that the issuer no longer lists ends', async ({ plane }) => {
  const { judged } = plane.open()
  await judged(first)
  plane.show([second.jwk])
  await plane.clock.advance(600_000)
  await plane.asked(2)
  await expect.poll(() => judged(second), { timeout: 10_000 }).toMatchObject(believed)
  expect(await judged(first)).toMatchObject({ ok: false })
})

describe('an issuer that is down', () => {
  test.for([
    ['answers 500', (issuer) => Object.assign(issuer, { status: 500 })],
    ['moves', (issuer) => Object.assign(issuer, { status: 302, headers: { location: '/other' } })],
    ['sends no JSON', (issuer) => Object.assign(issuer, { body: '<html>' })],
    ['sends no set', (issuer) => Object.assign(issuer, { body: '{"keys":1}' })],
    ['sends an empty set', (issuer) => Object.assign(issuer, { body: '{"keys":[]}' })],
    ['sends secrets', (issuer) => Object.assign(issuer, { body: '{"keys":[{"kty":"oct","k":"AAAA"}]}' })],
    ['sends too many keys', (issuer) => Object.assign(issuer, { body: JSON.stringify({ keys: Array(101).fill(first.jwk) }) })],
    ['sends without end', (issuer) => Object.assign(issuer, { body: ' '.repeat(300_000) })],
  ] satisfies [string, (issuer: { status: number }) => void][])(
    '%s: its last keys stay in force',
    async ([, change], { plane }) => {
      const { judged } = plane.open()
      expect(await judged(first)).toMatchObject(believed)
      change(plane.issuer)
      await plane.clock.advance(600_000)
      await expect.poll(() => plane.fetches('failed'), { timeout: 10_000, interval: 5 }).toBe(1)
      await plane.clock.advance(0)
      expect(await judged(first)).toMatchObject(believed)
      // What is not known cannot be asked for.
      expect(await judged(second)).toMatchObject(unavailable)
      // It is asked again within a minute.
      const asked = plane.issuer.fetches
      await plane.clock.advance(60_000)
      await expect.poll(() => plane.issuer.fetches, { timeout: 10_000, interval: 5 }).toBeGreaterThan(asked)
      expect(await plane.metric('push_edge_jwks_keys')).toBe(1)
    },
  )

  test('and does not answer: the fetch ends in time', async ({ plane }) => {
    plane.issuer.silent = true
    const { judged } = plane.open()
    const verdict = judged(first)
    await plane.asked(1)
    await plane.clock.advance(4_000)
    expect(await verdict).toMatchObject(unavailable)
    expect(plane.log.withPhrase('keys of the token issuer could not be fetched')).toHaveLength(1)
    plane.issuer.silent = false
    await plane.clock.advance(60_000)
    await expect.poll(() => judged(first), { timeout: 10_000, interval: 5 }).toMatchObject(believed)
  })

  test('when the edge starts: nobody is judged, and nobody is sent away for good, until it answers', async ({ plane }) => {
    plane.issuer.status = 503
    const { judged } = plane.open()
    expect(await judged(first)).toMatchObject(unavailable)
    expect(await judged(first)).toMatchObject(unavailable)
    expect(plane.issuer.fetches).toBe(1)
    plane.issuer.status = 200
    await plane.clock.advance(30_000)
    await expect.poll(() => judged(first), { timeout: 10_000, interval: 5 }).toMatchObject(believed)
  })
})

describe('algorithms', () => {
  test.for(publicKeyAlgorithms.map((alg) => [alg] as const))('%s', async ([alg], { plane }) => {
    const key = await issuerKey('own', alg)
    plane.show([key.jwk])
    expect(await plane.open([alg]).judged(key)).toMatchObject(believed)
    const other = alg === 'ES256' ? 'RS256' : 'ES256'
    expect(await plane.open([other]).judged(key)).toMatchObject({ ...invalid, detail: expect.stringContaining('algorithm') })
  })

  test('a token cannot choose none, nor take a public key for a shared secret', async ({ plane }) => {
    const { judge, judged } = plane.open()
    await judged(first)
    expect(await judge(new UnsecuredJWT(plane.claims).encode())).toMatchObject(invalid)
    const { SignJWT } = await import('jose')
    const forged = new SignJWT(plane.claims).setProtectedHeader({ alg: 'HS256', kid: 'first' })
    expect(await judge(await forged.sign(Buffer.from(JSON.stringify(first.jwk))))).toMatchObject(invalid)
  })

  test('a token of another key under the same name does not hold, nor one that names no key among several', async ({ plane }) => {
    const { judged } = plane.open()
    expect(await judged(await issuerKey('first'))).toMatchObject(invalid)
    const nameless = await issuerKey(undefined)
    plane.show([nameless.jwk, second.jwk])
    await plane.clock.advance(600_000)
    await plane.asked(2)
    await expect.poll(() => judged(second), { timeout: 10_000 }).toMatchObject(believed)
    expect(await judged(nameless)).toMatchObject({ ...invalid, detail: expect.stringContaining('which key') })
  })
})

test('neither log nor verdict holds a token, or what the query of the address holds', async ({ plane }) => {
  const { judge } = plane.open(['ES256'], '?key=topsecret')
  const token = await second.sign({ ...plane.claims, sub: 'topsecret-device' })
  const verdict = await judge(token)
  plane.issuer.status = 500
  await plane.clock.advance(600_000)
  await expect.poll(() => plane.fetches('failed'), { timeout: 10_000, interval: 5 }).toBe(1)
  expect(JSON.stringify([verdict, plane.log.entries])).not.toMatch(/topsecret|eyJ/)
  expect(plane.log.entries.length).toBeGreaterThan(1)
})
