// An identity module for edges (EDGE_AUTH=module, EDGE_AUTH_MODULE=examples/identity-module/opaque-tokens.ts): devices show opaque tokens, and a
// service of one's own says whose they are. docs/devices-identity.md tells what the edge expects of such a module.
import type { Credential, IdentityModule, IdentityVerdict } from '../../edge/index.ts'

interface Owner {
  device: string
  account?: string
  expires_in?: number
}

/** `POST` with `{"token": …}`; answers 200 with the owner, `expires_in` in seconds, or 404. */
const url = process.env.TOKEN_SERVICE_URL

const open: IdentityModule = ({ clock, log }) => {
  if (url === undefined) throw new Error('TOKEN_SERVICE_URL is not set')
  log.info('tokens are looked up', { url })

  return {
    async authenticate({ text }: Credential): Promise<IdentityVerdict> {
      const response = await fetch(url, {
        method: 'POST',
        body: JSON.stringify({ token: text }),
        signal: AbortSignal.timeout(2_000),
      })
      // A verdict about this token: the device stays away until it has another.
      if (response.status === 404) return { ok: false, verdict: 'invalid', detail: 'the token is not known' }
      // Trouble of the service is no verdict about the token: the device tries again.
      if (!response.ok) return { ok: false, verdict: 'unavailable', detail: `the token service answered ${response.status}` }
      const { device, account, expires_in: seconds } = (await response.json()) as Owner
      const expiresAtMs = seconds === undefined ? undefined : clock.now() + seconds * 1_000
      return { ok: true, deviceId: device, accountId: account, expiresAtMs }
    },
  }
}

export default open
