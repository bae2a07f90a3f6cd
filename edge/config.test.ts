import { expect, test } from 'vitest'
import { ConfigError } from '../service-kit/config.ts'
import { originsOf, readEdgeConfig } from './config.ts'

const problemsOf = (env: Record<string, string>): readonly string[] => {
  try {
    readEdgeConfig(env)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}

test('nothing has to be set', () => {
  expect(readEdgeConfig({})).toMatchObject({
    listenAddress: '127.0.0.1:7402',
    deviceListenAddress: '127.0.0.1:7480',
    registryAddresses: '127.0.0.1:7401',
    routerAddresses: '127.0.0.1:7400',
    drainNoticeMs: 5_000,
    drainMs: 10_000,
    lifetimeMs: 1_800_000,
    lifetimeJitterMs: 900_000,
    registerTimeoutMs: 5_000,
  })
})

test('plain text on an address that others can reach has to be asked for, and dev identity never goes there', () => {
  const open = {
    EDGE_LISTEN_ADDRESS: '10.0.0.1:7402',
    EDGE_DEVICE_LISTEN_ADDRESS: '0.0.0.0:7480',
    EDGE_METRICS_ADDRESS: '10.0.0.1:1',
  }
  expect(problemsOf(open)).toHaveLength(4)
  expect(problemsOf({ ...open, EDGE_INSECURE: 'true' })).toEqual([expect.stringContaining('EDGE_AUTH is "dev"')])
  const jwt = { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: 'x'.repeat(32) }
  expect(problemsOf({ ...open, ...jwt, EDGE_INSECURE: 'true' })).toEqual([])
})

test('an address that nobody can dial is not advertised', () => {
  const open = { EDGE_INSECURE: 'true', EDGE_LISTEN_ADDRESS: '0.0.0.0:7402' }
  expect(problemsOf(open)).toEqual([expect.stringContaining('EDGE_ADVERTISE_ADDRESS')])
  expect(problemsOf({ ...open, EDGE_ADVERTISE_ADDRESS: 'edge-1.example:7402' })).toEqual([])
  expect(problemsOf({ ...open, EDGE_ADVERTISE_ADDRESS: 'edge-1.example:0' })).toHaveLength(1)
})

test('a secret that is short or missing is told, and not shown', () => {
  expect(problemsOf({ EDGE_AUTH: 'jwt-hs256' })).toEqual([expect.stringContaining('EDGE_JWT_SECRET must hold at least 32 bytes')])
  expect(problemsOf({ EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: 'hunter2' }).join()).not.toContain('hunter2')
})

test('a jitter longer than the lifetime makes no sense', () => {
  expect(problemsOf({ EDGE_LIFETIME_MS: '5000', EDGE_LIFETIME_JITTER_MS: '6000' })).toHaveLength(1)
})

test('origins are a comma list', () => {
  expect(originsOf(readEdgeConfig({ EDGE_ALLOWED_ORIGINS: 'https://a.example, https://b.example:8443' }))).toEqual([
    'https://a.example',
    'https://b.example:8443',
  ])
  expect(originsOf(readEdgeConfig({}))).toEqual([])
})

test('an issuer of tokens is named with all that makes its tokens ours, and is asked over TLS', () => {
  const jwks = { EDGE_AUTH: 'jwt-jwks' }
  expect(problemsOf(jwks)).toEqual([
    expect.stringContaining('EDGE_JWT_ISSUER'),
    expect.stringContaining('EDGE_JWT_AUDIENCE'),
    expect.stringContaining('EDGE_JWKS_URL'),
  ])
  const whole = { ...jwks, EDGE_JWT_ISSUER: 'https://id.example', EDGE_JWT_AUDIENCE: 'push' }
  const withUrl = (url: string, more = {}) => problemsOf({ ...whole, EDGE_JWKS_URL: url, ...more })
  for (const url of ['https://id.example/keys', 'http://127.0.0.1:9000/keys', 'http://localhost/keys', 'http://[::1]:1/'])
    expect(withUrl(url), url).toEqual([])
  for (const url of ['http://id.example/keys', 'id.example', 'file:///keys', 'https://user:pass@id.example/'])
    expect(withUrl(url), url).toEqual([expect.not.stringContaining('pass@')])
  expect(withUrl('http://id.example/keys', { EDGE_INSECURE: 'true' })).toEqual([])
  expect(withUrl('https://id.example/', { EDGE_JWKS_TIMEOUT_MS: '5000' })).toHaveLength(1)
  for (const algorithms of ['HS256', 'none', '', 'ES256,', 'es256'].filter(Boolean))
    expect(withUrl('https://id.example/', { EDGE_JWT_ALGORITHMS: algorithms }), algorithms).toHaveLength(1)
  const config = readEdgeConfig({ ...whole, EDGE_JWKS_URL: 'https://id.example/', EDGE_JWT_ALGORITHMS: 'EdDSA, ES256' })
  expect(config.jwtAlgorithms).toEqual(['EdDSA', 'ES256'])
})

test('the device port has certificate and key, or neither; client certificates need both, and where there is TLS others may come', () => {
  const pair = { EDGE_DEVICE_TLS_CERT_FILE: 'a.crt', EDGE_DEVICE_TLS_KEY_FILE: 'a.key' }
  const jwt = { EDGE_AUTH: 'jwt-hs256', EDGE_JWT_SECRET: 'x'.repeat(32) }
  expect(problemsOf(pair)).toEqual([])
  expect(problemsOf({ EDGE_DEVICE_TLS_CERT_FILE: 'a.crt' })).toEqual([expect.stringContaining('one is missing')])
  expect(problemsOf({ EDGE_DEVICE_TLS_KEY_FILE: 'a.key' })).toEqual([expect.stringContaining('one is missing')])
  expect(problemsOf({ EDGE_DEVICE_CLIENT_CA_FILE: 'ca.crt' })).toEqual([expect.stringContaining('over TLS alone')])
  expect(problemsOf({ ...pair, EDGE_AUTH: 'client-certificate' })).toEqual([
    expect.stringContaining('EDGE_DEVICE_CLIENT_CA_FILE'),
  ])
  expect(problemsOf({ ...pair, EDGE_AUTH: 'client-certificate', EDGE_DEVICE_CLIENT_CA_FILE: 'ca.crt' })).toEqual([])
  expect(problemsOf({ ...pair, ...jwt, EDGE_DEVICE_LISTEN_ADDRESS: '0.0.0.0:7480' })).toEqual([])
  expect(problemsOf({ ...jwt, EDGE_DEVICE_LISTEN_ADDRESS: '0.0.0.0:7480' })).toHaveLength(1)
  expect(problemsOf({ ...pair, EDGE_DEVICE_LISTEN_ADDRESS: '0.0.0.0:7480' })).toEqual([
    expect.stringContaining('EDGE_AUTH is "dev"'),
  ])
})

test('an identity module has to be named', () => {
  expect(problemsOf({ EDGE_AUTH: 'module' })).toEqual([expect.stringContaining('EDGE_AUTH_MODULE')])
})
