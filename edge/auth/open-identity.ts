import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Random } from '../../service-kit/random.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import { boundedIdentity } from './bounded.ts'
import { devIdentity } from './dev.ts'
import { type Identity, notBelieved } from './identity.ts'
import { type ModuleIdentity, openIdentityModule } from './identity-module.ts'
import type { IdentityConfig } from './identity-settings.ts'
import { type TokenRules, tokenIdentity } from './jwt.ts'
import { hs256Identity } from './jwt-hs256.ts'
import { openKeySet } from './key-set.ts'

/** An identity with what it has opened. */
export interface OpenIdentity extends Identity {
  close(): Promise<void>
}

export interface OpenIdentityOptions {
  readonly config: IdentityConfig
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
}

/** Opens what the config names. An issuer of tokens that does not answer keeps no edge from starting; a module that does not open does. */
export async function openIdentity(options: OpenIdentityOptions): Promise<OpenIdentity> {
  const inner = await open(options)
  const { authenticate } = boundedIdentity(inner, { timeoutMs: options.config.authTimeoutMs, ...options })
  return {
    authenticate,
    async close() {
      await inner.close?.()
    },
  }
}

async function open({ config, clock, random, log, metrics }: OpenIdentityOptions): Promise<ModuleIdentity> {
  const rules: TokenRules = {
    issuer: config.jwtIssuer,
    audience: config.jwtAudience,
    deviceClaim: config.jwtDeviceClaim,
    accountClaim: config.jwtAccountClaim,
    clockSkewMs: config.jwtClockSkewMs,
    clock,
  }
  switch (config.auth) {
    case 'dev':
      return devIdentity()
    case 'jwt-hs256':
      return hs256Identity(rules, config.jwtSecret ?? '')
    case 'jwt-jwks': {
      const { jwksUrl: url = '', jwksRefreshMs: refreshMs, jwksCooldownMs: cooldownMs, jwksTimeoutMs: timeoutMs } = config
      const keys = openKeySet({ url, refreshMs, cooldownMs, timeoutMs, clock, random, log, metrics })
      return { ...tokenIdentity(rules, config.jwtAlgorithms, keys.keyOf), close: keys.close }
    }
    case 'client-certificate':
      return { authenticate: async () => notBelieved('only client certificates are taken here') }
    case 'module':
      return openIdentityModule(config.authModule ?? '', { clock, log })
  }
}
