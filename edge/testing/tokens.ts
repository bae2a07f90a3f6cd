import { createServer } from 'node:http'
import { exportJWK, generateKeyPair, type JWK, SignJWT } from 'jose'
import { expect } from 'vitest'
import type { Clock } from '../../service-kit/clock.ts'
import type { TokenRules } from '../auth/jwt.ts'

/** Rules as they are when the operator sets nothing. */
export function tokenRules(clock: Clock, rules: Partial<TokenRules> = {}): TokenRules {
  return {
    issuer: undefined,
    audience: undefined,
    deviceClaim: 'sub',
    accountClaim: 'account',
    clockSkewMs: 5_000,
    clock,
    ...rules,
  }
}

/** A key pair of an issuer: its public half for a set, and what it signs. */
export async function issuerKey(kid: string | undefined, alg = 'ES256') {
  const { publicKey, privateKey } = await generateKeyPair(alg)
  const jwk: JWK = { ...(await exportJWK(publicKey)), alg, ...(kid !== undefined && { kid }) }
  return {
    jwk,
    sign: (claims: Record<string, unknown>) =>
      new SignJWT(claims).setProtectedHeader({ alg, ...(kid !== undefined && { kid }) }).sign(privateKey),
  }
}

/** An issuer of tokens that serves its keys over HTTP. What it answers may be changed while it runs. */
export async function serveKeys(keys: readonly JWK[]) {
  const issuer = { status: 200, body: '', fetches: 0, silent: false, headers: {} as Record<string, string> }
  const show = (shown: readonly JWK[]) => {
    issuer.body = JSON.stringify({ keys: shown })
  }
  show(keys)
  const server = createServer((_request, response) => {
    issuer.fetches++
    if (!issuer.silent) response.writeHead(issuer.status, issuer.headers).end(issuer.body)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const bound = server.address()
  return {
    issuer,
    show,
    url: `http://127.0.0.1:${typeof bound === 'object' ? bound?.port : 0}/keys.json`,
    /** Until the issuer has been asked so often. */
    asked: (count: number) => expect.poll(() => issuer.fetches, { timeout: 10_000, interval: 5 }).toBe(count),
    close() {
      server.closeAllConnections()
      return new Promise((resolve) => server.close(resolve))
    },
  }
}
