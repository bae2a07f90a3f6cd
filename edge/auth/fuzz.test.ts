import fc from 'fast-check'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { expect, test } from 'vitest'
import { fuzzed, fuzzTimeoutMs, mutated } from '../../service-kit/testing/fuzz.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { tokenRules } from '../testing/tokens.ts'
import { tokenIdentity } from './jwt.ts'
import { hs256Identity } from './jwt-hs256.ts'

const clock = new SteeredClock()
const secret = 's'.repeat(32)
const claims = { sub: 'tv-1', account: 'anna', exp: clock.now() / 1_000 + 1_000 }
const encoded = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

test.for(['HS256', 'ES256'])(
  "%s: no change to a token makes it another device's, and every text has a verdict",
  { timeout: fuzzTimeoutMs },
  async (alg) => {
    const pair = await generateKeyPair('ES256')
    const rules = tokenRules(clock)
    const identity = alg === 'HS256' ? hs256Identity(rules, secret) : tokenIdentity(rules, ['ES256'], async () => pair.publicKey)
    const key = alg === 'HS256' ? Buffer.from(secret) : pair.privateKey
    const token = await new SignJWT(claims).setProtectedHeader({ alg, kid: 'k' }).sign(key)
    const [header = '', payload = '', signature = ''] = token.split('.')
    const publicKey = JSON.stringify(await exportJWK(pair.publicKey))
    // Signed by nobody, or by what everybody knows.
    const forged = fc
      .tuple(
        fc.record(
          {
            alg: fc.constantFrom('none', 'None', '', alg, 'HS256', 'HS512', 'RS256', 'dir'),
            kid: fc.string(),
            crit: fc.constantFrom(undefined, ['b64'], 'exp'),
          },
          { requiredKeys: [] },
        ),
        fc.oneof(fc.constant({ ...claims, sub: 'tv-2' }), fc.jsonValue()),
        fc.constantFrom(signature, '', encoded(publicKey), signature.slice(1)),
      )
      .map(([head, body, end]) => `${encoded(head)}.${encoded(body)}.${end}`)
    const shuffled = fc
      .array(fc.constantFrom(header, payload, signature, '', '.', 'e30'), { maxLength: 6 })
      .map((list) => list.join('.'))
    const text = fc.oneof(mutated(Buffer.from(token)).map(String), forged, shuffled, fc.string())
    await fc.assert(
      fc.asyncProperty(text, async (changed) => {
        const verdict = await identity.authenticate({ text: changed, from: 'header' })
        // Text that says the same bytes, such as a last character whose spare bits differ, is the same token.
        if (verdict.ok) expect(verdict).toMatchObject({ deviceId: 'tv-1', accountId: 'anna' })
        else
          expect(verdict).toMatchObject({
            verdict: expect.stringMatching(/^(invalid|expired)$/),
            detail: expect.stringMatching(/^.{1,200}$/),
          })
        if (!verdict.ok) expect(verdict.detail).not.toContain(payload)
      }),
      fuzzed(400),
    )
    expect(await identity.authenticate({ text: token, from: 'header' })).toMatchObject({ ok: true, deviceId: 'tv-1' })
  },
)
