import { SignJWT, UnsecuredJWT } from 'jose'
import { describe, expect, test } from 'vitest'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { tokenRules } from '../testing/tokens.ts'
import { devIdentity } from './dev.ts'
import type { TokenRules } from './jwt.ts'
import { hs256Identity } from './jwt-hs256.ts'

describe('dev', () => {
  const header = (text: string) => devIdentity().authenticate({ text, from: 'header' })
  const subprotocol = (plain: string) =>
    devIdentity().authenticate({ text: Buffer.from(plain).toString('base64url'), from: 'subprotocol' })

  test('believes a device and its account, from a header and from a subprotocol in base64url', async () => {
    const anna = { ok: true, deviceId: 'tv-1', accountId: 'anna' }
    expect(await header('dev:tv-1/anna')).toMatchObject(anna)
    expect(await subprotocol('dev:tv-1/anna')).toMatchObject(anna)
    expect(await header('dev:tv:~1')).toMatchObject({ ok: true, deviceId: 'tv:~1', accountId: undefined })
  })

  test.each(['', 'tv-1', 'dev:', 'dev:/a', 'dev:a/', 'dev:a/b/c', 'dev:ä', 'DEV:a', `dev:${'x'.repeat(129)}`])(
    'refuses %j',
    async (text) => {
      expect(await header(text)).toMatchObject({ ok: false, verdict: 'invalid' })
      expect(await subprotocol(text)).toMatchObject({ ok: false, verdict: 'invalid' })
    },
  )

  test('takes no plain text as a subprotocol, no base64url as a header', async () => {
    expect(await devIdentity().authenticate({ text: 'dev:a', from: 'subprotocol' })).toMatchObject({ ok: false })
    expect(await header(Buffer.from('dev:a').toString('base64url'))).toMatchObject({ ok: false })
  })
})

describe('jwt-hs256', () => {
  const secret = 's'.repeat(32)
  const clock = new SteeredClock()
  const nowSeconds = clock.now() / 1_000
  const sign = (claims: Record<string, unknown>, key = secret, alg = 'HS256') =>
    new SignJWT(claims).setProtectedHeader({ alg }).sign(Buffer.from(key))
  const judge = async (token: string, rules: Partial<TokenRules> = {}) =>
    hs256Identity(tokenRules(clock, rules), secret).authenticate({ text: token, from: 'header' })
  const claims = { sub: 'tv-1', account: 'anna', exp: nowSeconds + 60 }

  test('believes a good token until it expires', async () => {
    expect(await judge(await sign(claims))).toEqual({
      ok: true,
      deviceId: 'tv-1',
      accountId: 'anna',
      expiresAtMs: clock.now() + 65_000,
    })
    expect(await judge(await sign({ ...claims, account: undefined }))).toMatchObject({ ok: true, accountId: undefined })
  })

  test('a token that has expired within what clocks may differ by holds for the rest of that', async () => {
    expect(await judge(await sign({ ...claims, exp: nowSeconds - 3 }))).toMatchObject({ expiresAtMs: clock.now() + 2_000 })
    expect(await judge(await sign({ ...claims, exp: nowSeconds - 5 }))).toMatchObject({ ok: false, verdict: 'expired' })
  })

  test('an expired token is told apart from a bad one', async () => {
    expect(await judge(await sign({ ...claims, exp: nowSeconds - 60 }))).toMatchObject({ ok: false, verdict: 'expired' })
  })

  test.each([
    ['another key', () => sign(claims, 't'.repeat(32))],
    ['another algorithm', () => sign(claims, 's'.repeat(64), 'HS512')],
    ['no signature', async () => new UnsecuredJWT(claims).encode()],
    ['no sub', () => sign({ ...claims, sub: undefined })],
    ['no exp', () => sign({ ...claims, exp: undefined })],
    ['a sub that is no id', () => sign({ ...claims, sub: 'a/b' })],
    ['an account that is no id', () => sign({ ...claims, account: 'a b' })],
    ['an account that is a number', () => sign({ ...claims, account: 7 })],
    ['a time that has not come', () => sign({ ...claims, nbf: nowSeconds + 60 })],
    ['no JWT at all', async () => 'a.b.c'],
  ])('refuses %s', async (_what, make) => {
    expect(await judge(await make())).toMatchObject({ ok: false, verdict: 'invalid' })
  })

  test('issuer and audience are required when set', async () => {
    const expected = { issuer: 'issuer', audience: 'push' }
    expect(await judge(await sign(claims), expected)).toMatchObject({ ok: false, verdict: 'invalid' })
    expect(await judge(await sign({ ...claims, iss: 'issuer', aud: 'other' }), expected)).toMatchObject({ ok: false })
    expect(await judge(await sign({ ...claims, iss: 'issuer', aud: ['x', 'push'] }), expected)).toMatchObject({ ok: true })
  })

  test('device and account are in the claims that the operator names', async () => {
    const rules = { deviceClaim: 'device', accountClaim: 'https://issuer.example/account' }
    const token = await sign({ sub: 'somebody', device: 'tv-9', [rules.accountClaim]: 'bert', account: 'x', exp: claims.exp })
    expect(await judge(token, rules)).toMatchObject({ ok: true, deviceId: 'tv-9', accountId: 'bert' })
    expect(await judge(await sign(claims), rules)).toMatchObject({ ok: false, detail: 'claim device does not hold' })
  })

  test('clocks may differ by what the operator says, and not by more', async () => {
    const token = await sign({ ...claims, nbf: nowSeconds + 20, exp: nowSeconds + 60 })
    expect(await judge(token)).toMatchObject({ ok: false, detail: 'claim nbf does not hold' })
    expect(await judge(token, { clockSkewMs: 20_000 })).toMatchObject({ ok: true, expiresAtMs: clock.now() + 80_000 })
  })

  test('what is told of a refused token holds nothing of it', async () => {
    const token = await sign({ ...claims, sub: 'secret/device' })
    expect(JSON.stringify(await judge(token))).not.toMatch(/secret|eyJ/)
  })

  test('a secret shorter than the hash is no secret', () => {
    expect(() => hs256Identity(tokenRules(clock), 'short')).toThrow(RangeError)
  })
})
