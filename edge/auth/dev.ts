import { isPushId } from '../../service-kit/ids.ts'
import type { Credential, Identity } from './identity.ts'
import { notBelieved } from './identity.ts'

const prefix = 'dev:'

/**
 * Believes everybody: `dev:<device>` or `dev:<device>/<account>`, as a subprotocol in base64url, because that allows neither `:`
 * nor `/`. For listeners on loopback only, which the config sees to.
 */
export function devIdentity(): Identity {
  return {
    async authenticate(credential) {
      const text = plainText(credential)
      if (!text.startsWith(prefix)) return notBelieved('expected dev:<device> or dev:<device>/<account>')
      const [deviceId = '', accountId, ...more] = text.slice(prefix.length).split('/')
      if (more.length > 0 || !isPushId(deviceId) || (accountId !== undefined && !isPushId(accountId))) {
        return notBelieved('ids are 1 to 128 characters of [A-Za-z0-9._:~-]')
      }
      return { ok: true, deviceId, accountId, expiresAtMs: undefined }
    },
  }
}

function plainText({ text, from }: Credential): string {
  return from !== 'subprotocol' ? text : Buffer.from(text, 'base64url').toString('utf8')
}
