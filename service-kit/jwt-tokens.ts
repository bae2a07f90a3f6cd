import { errors, jwtVerify } from 'jose'
import type { TokenVerifier } from './access.ts'
import type { Clock } from './clock.ts'
import { type Role, roles } from './peer-identity.ts'

/** What tokens of callers must hold. */
export interface JwtTokensOptions {
  /** At least 32 bytes: as long as the hash, as RFC 7518 demands. */
  readonly secret: string
  /** `iss` must be this, when set. */
  readonly issuer: string | undefined
  /** `aud` must name this. Not optional: a token made for something else, as for a device, must be nothing here. */
  readonly audience: string
  readonly clock: Clock
}

/** Fewest bytes of a secret. */
export const tokenSecretBytesMin = 32
/** How far apart the clocks of the token's issuer and of this process may be, in seconds. */
const clockToleranceSeconds = 5
const principalPattern = /^[A-Za-z0-9._~@:-]{1,128}$/
/** Services show certificates: a token makes nobody a router. */
const tokenRoles: readonly Role[] = ['publisher', 'operator']

/** Believes tokens signed with a shared secret (HS256): `sub` is the principal, `roles` its roles, by default publisher alone; `exp` is required. */
export function jwtTokens({ secret, issuer, audience, clock }: JwtTokensOptions): TokenVerifier {
  const key = Buffer.from(secret, 'utf8')
  if (key.length < tokenSecretBytesMin) throw new RangeError(`a secret of ${key.length} bytes is too short`)
  return {
    async verify(token) {
      const invalid = (detail: string) => ({ ok: false, verdict: 'invalid', detail }) as const
      try {
        const { payload } = await jwtVerify(token, key, {
          // Pinned: the token must not choose how it is checked.
          algorithms: ['HS256'],
          requiredClaims: ['sub', 'exp', 'aud'],
          clockTolerance: clockToleranceSeconds,
          // biome-ignore lint/style/noRestrictedGlobals: only turns the clock's time into the type that jose takes.
          currentDate: new Date(clock.now()),
          audience,
          ...(issuer !== undefined && { issuer }),
        })
        const { sub, exp } = payload
        if (sub === undefined || !principalPattern.test(sub)) return invalid('the token names no principal (sub)')
        if (exp === undefined) return invalid('the token has no end (exp)')
        const named = payload.roles ?? ['publisher']
        const known = Array.isArray(named) && named.every((role) => tokenRoles.includes(role))
        if (!known) return invalid('the token has other roles than publisher and operator')
        return {
          ok: true,
          principal: sub,
          roles: roles.filter((role) => named.includes(role)),
          // What is believed now is believed for that long: whoever asks later must not be stricter than this.
          expiresAtMs: (exp + clockToleranceSeconds) * 1_000,
        }
      } catch (error) {
        if (error instanceof errors.JWTExpired) return { ok: false, verdict: 'expired', detail: 'the token has expired' }
        if (error instanceof errors.JWTClaimValidationFailed) return invalid(`claim ${error.claim} of the token does not hold`)
        if (error instanceof errors.JOSEError) return invalid('the token does not hold')
        return { ok: false, verdict: 'unavailable', detail: 'tokens cannot be checked now' }
      }
    },
  }
}
