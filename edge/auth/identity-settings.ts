import { type ConfigOf, defineConfig, list, milliseconds, oneOf, path, setting, text } from '../../service-kit/config.ts'
import { isLoopback } from '../../service-kit/listen-address.ts'
import { secretBytesMin } from './jwt-hs256.ts'

const hour = 3_600_000

/** Signatures by a private key: whoever checks them can make none. */
export const publicKeyAlgorithms = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const

const claim = () => text({ pattern: { matches: /^[!-~]{1,128}$/, expected: '1 to 128 characters without spaces' } })

const altName = () =>
  text({ pattern: { matches: /^(URI|DNS|email):[!-~]{0,128}$/, expected: 'URI:, DNS: or email:, and up to 128 characters' } })

/** How devices are identified. */
export const identitySettings = {
  auth: setting('EDGE_AUTH', oneOf(['dev', 'jwt-hs256', 'jwt-jwks', 'module', 'client-certificate']), {
    default: 'dev',
    doc: 'How devices are identified: docs/devices-identity.md. dev believes everybody and works on loopback only.',
  }),
  authTimeoutMs: setting('EDGE_AUTH_TIMEOUT_MS', milliseconds({ min: 100, max: 60_000 }), {
    default: 5_000,
    doc: 'Longest wait for the verdict about a credential; then the device is told to try again.',
  }),
  authModule: setting('EDGE_AUTH_MODULE', path(), {
    optional: true,
    doc: 'The JavaScript or TypeScript module that identifies devices, from the working directory. Required for module.',
  }),
  deviceTlsCertFile: setting('EDGE_DEVICE_TLS_CERT_FILE', path(), {
    optional: true,
    doc: 'Certificate chain (PEM) that the device port shows; with it devices connect over TLS. Read again when it changes, and at SIGHUP.',
  }),
  deviceTlsKeyFile: setting('EDGE_DEVICE_TLS_KEY_FILE', path(), {
    optional: true,
    doc: 'Private key (PEM, without passphrase) that belongs to the certificate of the device port.',
  }),
  deviceClientCaFile: setting('EDGE_DEVICE_CLIENT_CA_FILE', path(), {
    optional: true,
    doc: 'Certificates (PEM) of the authorities that certify devices; with it the device port asks for client certificates, and believes them.',
  }),
  certificateDevicePrefix: setting('EDGE_CLIENT_CERTIFICATE_DEVICE', altName(), {
    default: 'URI:push:device:',
    doc: "How the entry of a client certificate's subject alternative name begins that holds the device id: its kind, a colon, and what comes before the id.",
  }),
  certificateAccountPrefix: setting('EDGE_CLIENT_CERTIFICATE_ACCOUNT', altName(), {
    default: 'URI:push:account:',
    doc: 'The same for the account id. A certificate without such an entry is of no account.',
  }),
  jwtSecret: setting('EDGE_JWT_SECRET', text({ maxLength: 4_096 }), {
    optional: true,
    secret: true,
    doc: `Secret shared with the issuer of tokens, at least ${secretBytesMin} bytes. Required for jwt-hs256.`,
  }),
  jwksUrl: setting('EDGE_JWKS_URL', text({ maxLength: 2_048 }), {
    optional: true,
    doc: 'Where the issuer of tokens serves its public keys: https, or http on loopback. Required for jwt-jwks.',
  }),
  jwksRefreshMs: setting('EDGE_JWKS_REFRESH_MS', milliseconds({ min: 10_000, max: 24 * hour }), {
    default: 600_000,
    doc: 'How often the keys are fetched again. A key that the issuer no longer lists counts until then.',
  }),
  jwksCooldownMs: setting('EDGE_JWKS_COOLDOWN_MS', milliseconds({ min: 1_000, max: hour }), {
    default: 30_000,
    doc: 'Least time between two fetches, also when tokens name keys that are not known, or the issuer does not answer.',
  }),
  jwksTimeoutMs: setting('EDGE_JWKS_TIMEOUT_MS', milliseconds({ min: 100, max: 60_000 }), {
    default: 4_000,
    doc: 'Longest wait for the keys. The last ones that came stay in force.',
  }),
  jwtAlgorithms: setting('EDGE_JWT_ALGORITHMS', list(publicKeyAlgorithms), {
    default: ['RS256', 'PS256', 'ES256', 'EdDSA'],
    doc: 'By which algorithms tokens may be signed for jwt-jwks.',
  }),
  jwtIssuer: setting('EDGE_JWT_ISSUER', text({ maxLength: 256 }), {
    optional: true,
    doc: 'Required `iss` of tokens, when set. To be set for jwt-jwks.',
  }),
  jwtAudience: setting('EDGE_JWT_AUDIENCE', text({ maxLength: 256 }), {
    optional: true,
    doc: 'Required `aud` of tokens, when set. To be set for jwt-jwks: an issuer makes tokens for others as well.',
  }),
  jwtDeviceClaim: setting('EDGE_JWT_DEVICE_CLAIM', claim(), {
    default: 'sub',
    doc: 'The claim that holds the device id.',
  }),
  jwtAccountClaim: setting('EDGE_JWT_ACCOUNT_CLAIM', claim(), {
    default: 'account',
    doc: 'The claim that holds the account id; tokens without it are of devices that are logged in to none.',
  }),
  jwtClockSkewMs: setting('EDGE_JWT_CLOCK_SKEW_MS', milliseconds({ min: 0, max: 300_000 }), {
    default: 5_000,
    doc: 'How far apart the clocks of issuer and edge may be: tokens hold so much longer, and so much sooner.',
  }),
  credentialRefreshMinMs: setting('EDGE_CREDENTIAL_REFRESH_MIN_MS', milliseconds({ min: 0, max: hour }), {
    default: 10_000,
    doc: 'Least time between two new credentials that a device shows in its open session; sooner ones are answered by an error frame.',
  }),
}

const identityConfig = defineConfig('edge', identitySettings)
export type IdentityConfig = ConfigOf<typeof identityConfig>

/** What is wrong between these settings, as lines for the operator. */
export function identityProblems(
  config: IdentityConfig & { readonly deviceListenAddress: string; readonly insecure: boolean },
): string[] {
  return [...tlsProblems(config), ...authProblems(config)]
}

function tlsProblems(config: IdentityConfig): string[] {
  const { deviceTlsCertFile, deviceTlsKeyFile, deviceClientCaFile } = config
  if ((deviceTlsCertFile === undefined) !== (deviceTlsKeyFile === undefined))
    return ['EDGE_DEVICE_TLS_CERT_FILE and EDGE_DEVICE_TLS_KEY_FILE belong together; one is missing']
  if (deviceClientCaFile !== undefined && deviceTlsCertFile === undefined)
    return ['EDGE_DEVICE_CLIENT_CA_FILE is set without EDGE_DEVICE_TLS_CERT_FILE; client certificates are shown over TLS alone']
  return []
}

function authProblems(config: IdentityConfig & { readonly deviceListenAddress: string; readonly insecure: boolean }): string[] {
  const missing = (name: string, value: string | undefined) =>
    value === undefined ? [`${name} is missing; EDGE_AUTH "${config.auth}" needs it`] : []
  switch (config.auth) {
    case 'dev':
      return isLoopback(config.deviceListenAddress)
        ? []
        : [
            `EDGE_AUTH is "dev", which believes everybody; with EDGE_DEVICE_LISTEN_ADDRESS "${config.deviceListenAddress}" use another`,
          ]
    case 'jwt-hs256':
      return Buffer.byteLength(config.jwtSecret ?? '') < secretBytesMin
        ? [`EDGE_JWT_SECRET must hold at least ${secretBytesMin} bytes for EDGE_AUTH "jwt-hs256"`]
        : []
    case 'jwt-jwks':
      return [
        ...missing('EDGE_JWT_ISSUER', config.jwtIssuer),
        ...missing('EDGE_JWT_AUDIENCE', config.jwtAudience),
        ...(config.jwksUrl === undefined ? missing('EDGE_JWKS_URL', undefined) : urlProblems(config.jwksUrl, config.insecure)),
        ...(config.jwksTimeoutMs >= config.authTimeoutMs
          ? [
              `EDGE_JWKS_TIMEOUT_MS is ${config.jwksTimeoutMs}, which must be shorter than EDGE_AUTH_TIMEOUT_MS with ${config.authTimeoutMs}`,
            ]
          : []),
      ]
    case 'module':
      return missing('EDGE_AUTH_MODULE', config.authModule)
    case 'client-certificate':
      return missing('EDGE_DEVICE_CLIENT_CA_FILE', config.deviceClientCaFile)
  }
}

/** Whoever can change the keys under way decides who is believed. */
function urlProblems(typed: string, insecure: boolean): string[] {
  const url = URL.parse(typed)
  const safe = url?.protocol === 'https:' || (url?.protocol === 'http:' && (insecure || isLoopback(`${url.hostname}:80`)))
  if (url === null || !safe || url.username !== '' || url.password !== '')
    return [
      'EDGE_JWKS_URL must be an https URL without user and password (not shown); http is for loopback, else set EDGE_INSECURE=true',
    ]
  return []
}
