const bearerPrefix = 'push.bearer.'
// RFC 9110 calls this a token: all that a subprotocol's name may consist of.
const subprotocolSafe = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+$/

/**
 * The subprotocols to offer: the form of the frames, and the credential as a second one, because a browser can set no header. A JWT goes as it is;
 * what holds characters that a subprotocol does not allow goes in base64url.
 */
export function subprotocolsFor(form: string, token: string): string[] {
  return [form, bearerPrefix + (subprotocolSafe.test(token) ? token : base64Url(token))]
}

function base64Url(text: string): string {
  const bytes = new TextEncoder().encode(text)
  const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''))
  return base64.replaceAll('+', '-').replaceAll('/', '_').replace(/=+$/, '')
}
