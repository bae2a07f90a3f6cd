import { SignJWT } from 'jose'
import { expect, test } from 'vitest'
import { type JwtTokensOptions, jwtTokens } from './jwt-tokens.ts'
import { SteeredClock } from './testing/steered-clock.ts'

const secret = 's'.repeat(32)
const clock = new SteeredClock()
const now = clock.now() / 1_000
const claims = { sub: 'anna', aud: 'push-publishers', exp: now + 60 }
const sign = (more: Record<string, unknown> = {}, key = secret, alg = 'HS256') =>
  new SignJWT({ ...claims, ...more }).setProtectedHeader({ alg }).sign(Buffer.from(key))
const judge = async (token: string | Promise<string>, options: Partial<JwtTokensOptions> = {}) =>
  jwtTokens({ secret, issuer: undefined, audience: 'push-publishers', clock, ...options }).verify(await token)

test('a good token names a principal and its roles', async () => {
  expect(await judge(sign())).toEqual({ ok: true, principal: 'anna', roles: ['publisher'], expiresAtMs: clock.now() + 65_000 })
  expect(await judge(sign({ roles: ['operator', 'publisher'] }))).toMatchObject({ ok: true, roles: ['publisher', 'operator'] })
  expect(await judge(sign({ iss: 'us' }), { issuer: 'us' })).toMatchObject({ ok: true })
})

test.each([
  ['another key', () => sign({}, 't'.repeat(32))],
  ['another algorithm', () => sign({}, 's'.repeat(64), 'HS512')],
  ['another audience, as a token of a device has', () => sign({ aud: 'push-devices' })],
  ['no audience', () => sign({ aud: undefined })],
  ['no sub', () => sign({ sub: undefined })],
  ['a sub that is no name', () => sign({ sub: 'a b' })],
  ['no exp', () => sign({ exp: undefined })],
  ['the role of a service', () => sign({ roles: ['router'] })],
  ['roles that are no list', () => sign({ roles: 'operator' })],
  ['nothing of a token', async () => 'a.b.c'],
])('refuses %s', async (_what, make) => {
  expect(await judge(make())).toMatchObject({ ok: false, verdict: 'invalid' })
})

test('an expired token is told apart, the issuer must be right, and a short secret is none', async () => {
  expect(await judge(sign({ exp: now - 60 }))).toMatchObject({ ok: false, verdict: 'expired' })
  // The issuer's clock may be a little off, and what is taken at all is taken for longer than this moment.
  const atTheEdge = await judge(sign({ exp: now - 3 }))
  expect(atTheEdge.ok && atTheEdge.expiresAtMs).toBeGreaterThan(clock.now())
  expect(await judge(sign({ exp: now - 5 }))).toMatchObject({ ok: false, verdict: 'expired' })
  expect(await judge(sign({ iss: 'them' }), { issuer: 'us' })).toMatchObject({ ok: false, verdict: 'invalid' })
  expect(() => jwtTokens({ secret: 'short', issuer: undefined, audience: 'x', clock })).toThrow(RangeError)
})
