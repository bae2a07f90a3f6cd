import { errors, jwtVerify } from 'jose'
import type { Clock } from '../../service-kit/clock.ts'
import { isPushId } from '../../service-kit/ids.ts'
import type { Identity } from './identity.ts'
import { notBelieved } from './identity.ts'

/** What tokens must hold. */
export interface JwtOptions {
  /** At least 32 bytes: as long as the hash, as RFC 7518 demands. */
  readonly secret: string
  /** `iss` must be this, when set. */
  readonly issuer: string | undefined
  /** `aud` must name this, when set. */
  readonly audience: string | undefined
  readonly clock: Clock
}

/** Fewest bytes of a secret. */
export const secretBytesMin = 32
/** How far apart the clocks of the token's issuer and of this edge may be, in seconds. */
const clockToleranceSeconds = 5

/** Believes tokens signed with a shared secret: `sub` is the device, `account` the account it is logged in to; `exp` is required. */
export function jwtIdentity({ secret, issuer, audience, clock }: JwtOptions): Identity {
  const key = Buffer.from(secret, 'utf8')
  if (key.length < secretBytesMin)
    throw new RangeError(`a secret of ${key.length} bytes is too short; at least ${secretBytesMin}`)
  return {
    async authenticate({ text }) {
      try {
        const { payload } = await jwtVerify(text, key, {
          // Pinned: the token must not choose how it is checked.
          algorithms: ['HS256'],
          requiredClaims: ['sub', 'exp'],
          clockTolerance: clockToleranceSeconds,
          // biome-ignore lint/style/noRestrictedGlobals: only turns the clock's time into the type that jose takes.
          currentDate: new Date(clock.now()),
          ...(issuer !== undefined && { issuer }),
          ...(audience !== undefined && { audience }),
        })
        const { sub, account, exp } = payload
        if (sub === undefined || !isPushId(sub)) return notBelieved('sub is no device id')
        if (account !== undefined && (typeof account !== 'string' || !isPushId(account)))
          return notBelieved('account is no account id')
        // With the tolerance: a session opened within it would else be closed in the same moment.
        const expiresAtMs = exp === undefined ? undefined : (exp + clockToleranceSeconds) * 1000
        return { ok: true, deviceId: sub, accountId: account, expiresAtMs }
      } catch (error) {
        if (error instanceof errors.JWTExpired) return { ok: false, verdict: 'expired', detail: 'the token has expired' }
        if (error instanceof errors.JWTClaimValidationFailed) return notBelieved(`claim ${error.claim} does not hold`)
        if (error instanceof errors.JOSEError) return notBelieved('the token does not hold')
        return { ok: false, verdict: 'unavailable', detail: 'tokens cannot be checked now' }
      }
    },
  }
}
