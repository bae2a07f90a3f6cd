import { expect, test } from 'vitest'
import { ConfigError } from '../service-kit/config.ts'
import { readRouterConfig } from './config.ts'

const tls = { ROUTER_TLS_CERT_FILE: 'a', ROUTER_TLS_KEY_FILE: 'b', ROUTER_TLS_CA_FILE: 'c' }
const problemsOf = (env: Record<string, string>) => {
  try {
    readRouterConfig({ ROUTER_QUEUE_PATH: 'q', ...env })
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems
  }
}

test('with TLS a policy is required, and tokens need TLS and a long secret', () => {
  expect(problemsOf({})).toEqual([])
  expect(problemsOf(tls)).toEqual([expect.stringMatching(/^ROUTER_POLICY_FILE is missing/)])
  expect(problemsOf({ ...tls, ROUTER_POLICY_FILE: 'p', ROUTER_JWT_SECRET: 's'.repeat(32) })).toEqual([])
  expect(problemsOf({ ROUTER_JWT_SECRET: 's' })).toEqual([
    expect.stringMatching(/^ROUTER_JWT_SECRET must hold/),
    expect.stringMatching(/^ROUTER_JWT_SECRET needs ROUTER_TLS_CERT_FILE/),
  ])
})

test('plain text beyond this machine must be asked for, to listen and to dial', () => {
  const remote = {
    ROUTER_LISTEN_ADDRESS: '0.0.0.0:7400',
    ROUTER_REGISTRY_ADDRESSES: '10.0.0.1:7401',
    ROUTER_METRICS_ADDRESS: '0.0.0.0:9100',
  }
  expect(problemsOf(remote).map((problem) => problem.split(' ')[0])).toEqual(Object.keys(remote))
  expect(problemsOf({ ...remote, ROUTER_INSECURE: 'true' })).toEqual([])
  expect(problemsOf({ ...remote, ...tls, ROUTER_POLICY_FILE: 'p' })).toEqual([expect.stringMatching(/^ROUTER_METRICS_ADDRESS/)])
})
