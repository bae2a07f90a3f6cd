import { errors, type JWTVerifyGetKey, jwtVerify } from 'jose'
import type { Clock } from '../../service-kit/clock.ts'
import { isPushId } from '../../service-kit/ids.ts'
import { type Identity, type IdentityVerdict, notBelieved } from './identity.ts'

/** What tokens must hold, whoever signs them. */
export interface TokenRules {
  /** `iss` must be this, when set. */
  readonly issuer: string | undefined
  /** `aud` must name this, when set. */
  readonly audience: string | undefined
  /** The claim that names the device. Required in each token. */
  readonly deviceClaim: string
  /** The claim that names the account; a token without it is of a device that is logged in to none. */
  readonly accountClaim: string
  /** How far apart the clocks of the token's issuer and of this edge may be, in ms. */
  readonly clockSkewMs: number
  readonly clock: Clock
}

/** There is no key to check the token with, and that says nothing of the token. */
export class KeyUnavailableError extends Error {
  override readonly name = 'KeyUnavailableError'
}

/** Believes JSON Web Tokens signed by one of `algorithms` with the key that `keyOf` gives. `exp` is required, `nbf` is heeded. */
export function tokenIdentity(rules: TokenRules, algorithms: readonly string[], keyOf: JWTVerifyGetKey): Identity {
  const { issuer, audience, deviceClaim, accountClaim, clockSkewMs, clock } = rules
  return {
    async authenticate({ text }) {
      try {
        const { payload } = await jwtVerify(text, keyOf, {
          // Pinned: the token must not choose how it is checked.
          algorithms: [...algorithms],
          requiredClaims: [deviceClaim, 'exp'],
          clockTolerance: clockSkewMs / 1_000,
          // biome-ignore lint/style/noRestrictedGlobals: only turns the clock's time into the type that jose takes.
          currentDate: new Date(clock.now()),
          ...(issuer !== undefined && { issuer }),
          ...(audience !== undefined && { audience }),
        })
        const deviceId = payload[deviceClaim]
        const accountId = payload[accountClaim]
        if (typeof deviceId !== 'string' || !isPushId(deviceId)) return notBelieved(`claim ${deviceClaim} is no device id`)
        if (accountId !== undefined && (typeof accountId !== 'string' || !isPushId(accountId)))
          return notBelieved(`claim ${accountClaim} is no account id`)
        // With the tolerance: a session opened within it would else be closed in the same moment.
        const expiresAtMs = payload.exp === undefined ? undefined : payload.exp * 1_000 + clockSkewMs
        return { ok: true, deviceId, accountId, expiresAtMs }
      } catch (error) {
        return disbelieved(error)
      }
    },
  }
}

function disbelieved(error: unknown): IdentityVerdict {
  if (error instanceof KeyUnavailableError) return { ok: false, verdict: 'unavailable', detail: error.message }
  if (error instanceof errors.JWTExpired) return { ok: false, verdict: 'expired', detail: 'the token has expired' }
  if (error instanceof errors.JWTClaimValidationFailed) return notBelieved(`claim ${error.claim} does not hold`)
  if (error instanceof errors.JOSEAlgNotAllowed) return notBelieved('the token is signed by an algorithm that is not taken here')
  if (error instanceof errors.JWKSNoMatchingKey) return notBelieved('the token is signed with a key that is not known here')
  if (error instanceof errors.JWKSMultipleMatchingKeys) return notBelieved('the token does not say which key it is signed with')
  if (error instanceof errors.JOSEError) return notBelieved('the token does not hold')
  // A key of the issuer's that cannot be used.
  return { ok: false, verdict: 'unavailable', detail: 'tokens cannot be checked now' }
}
