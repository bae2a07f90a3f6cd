import type { Identity } from './identity.ts'
import { type TokenRules, tokenIdentity } from './jwt.ts'

/** Fewest bytes of a secret: as long as the hash, as RFC 7518 demands. */
export const secretBytesMin = 32

/** Believes tokens signed with a secret that edges and the issuer of tokens share. Throws RangeError for a secret that is too short. */
export function hs256Identity(rules: TokenRules, secret: string): Identity {
  const key = Buffer.from(secret, 'utf8')
  if (key.length < secretBytesMin)
    throw new RangeError(`a secret of ${key.length} bytes is too short; at least ${secretBytesMin}`)
  return tokenIdentity(rules, ['HS256'], () => key)
}
