import { describe, expect, expectTypeOf, test } from 'vitest'
import type { ConfigOf } from './config.ts'
import {
  address,
  addressList,
  bytes,
  ConfigError,
  defineConfig,
  describeConfig,
  flag,
  milliseconds,
  oneOf,
  path,
  readConfig,
  setting,
  settingsTable,
  text,
  wholeNumber,
} from './config.ts'

const definition = defineConfig(
  'edge',
  {
    pongTimeoutMs: setting('EDGE_PONG_TIMEOUT_MS', milliseconds({ min: 1000, max: 60_000 }), {
      default: 10_000,
      doc: 'Longest wait for a pong before the session closes.',
    }),
    registryAddresses: setting('EDGE_REGISTRY_ADDRESSES', addressList(), { doc: 'Whom to dial.' }),
    metricsAddress: setting('EDGE_METRICS_ADDRESS', address(), { optional: true, doc: 'Where metrics are served.' }),
    listen: setting('EDGE_LISTEN_ADDRESS', address(), { default: '127.0.0.1:0', doc: 'Where to listen.' }),
    identity: setting('EDGE_IDENTITY', oneOf(['dev', 'jwt']), {
      default: 'dev',
      doc: 'How devices say who they are | prove it.',
    }),
    insecure: setting('EDGE_INSECURE', flag(), { default: false, doc: 'Plain text on every address.' }),
    jwtSecret: setting('EDGE_JWT_SECRET', text({ maxLength: 64 }), { optional: true, secret: true, doc: 'The key.' }),
    outboxBytes: setting('EDGE_OUTBOX_BYTES', bytes({ min: 1024, max: 1_048_576 }), { default: 65_536, doc: 'Bound.' }),
    workers: setting('EDGE_WORKERS', wholeNumber({ min: 1, max: 64 }), { default: 1, doc: 'Processes.' }),
    dataPath: setting('EDGE_DATA_PATH', path(), { default: './data', doc: 'Where data lies.' }),
  },
  {
    check: (config) =>
      config.identity === 'jwt' && config.jwtSecret === undefined
        ? ['EDGE_JWT_SECRET is missing; EDGE_IDENTITY "jwt" needs it']
        : [],
  },
)

const enough = { EDGE_REGISTRY_ADDRESSES: 'r1:7401,r2:7401' }

function problemsOf(env: Record<string, string>): string {
  try {
    readConfig(definition, env)
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  return 'no problem'
}

test('what is set is typed, what is not has its default, and nothing can be changed', () => {
  const config = readConfig(definition, { ...enough, EDGE_INSECURE: 'true', EDGE_WORKERS: ' 4 ', EDGE_METRICS_ADDRESS: '' })
  expect(config).toEqual({
    pongTimeoutMs: 10_000,
    registryAddresses: 'r1:7401,r2:7401',
    metricsAddress: undefined,
    listen: '127.0.0.1:0',
    identity: 'dev',
    insecure: true,
    jwtSecret: undefined,
    outboxBytes: 65_536,
    workers: 4,
    dataPath: './data',
  })
  expect(Object.isFrozen(config)).toBe(true)
  expectTypeOf<ConfigOf<typeof definition>['identity']>().toEqualTypeOf<'dev' | 'jwt'>()
  expectTypeOf<ConfigOf<typeof definition>['metricsAddress']>().toEqualTypeOf<string | undefined>()
  expectTypeOf<ConfigOf<typeof definition>['pongTimeoutMs']>().toEqualTypeOf<number>()
})

test('every problem is told at once, by the name and value that the operator typed', () => {
  expect(problemsOf({ EDGE_PONG_TIMEOUT_MS: '10s', EDGE_PNG_TIMEOUT_MS: '5', EDGE_IDENTITY: 'none', OTHER: 'x' })).toBe(
    [
      'edge cannot start:',
      '  EDGE_PONG_TIMEOUT_MS is "10s"; expected whole milliseconds from 1000 to 60000',
      '  EDGE_REGISTRY_ADDRESSES is missing; expected host:port[,host:port…] or dns:///name:port',
      '  EDGE_IDENTITY is "none"; expected one of dev, jwt',
      '  EDGE_PNG_TIMEOUT_MS is not a setting of edge; did you mean EDGE_PONG_TIMEOUT_MS?',
    ].join('\n'),
  )
})

test('a wrong secret is named without its value', () => {
  const told = problemsOf({ ...enough, EDGE_JWT_SECRET: 'hush'.repeat(20) })
  expect(told).toContain('EDGE_JWT_SECRET has a wrong value (not shown); expected 1 to 64 characters')
  expect(told).not.toContain('hush')
})

test('problems between settings are told too', () => {
  expect(problemsOf({ ...enough, EDGE_IDENTITY: 'jwt' })).toBe(
    'edge cannot start:\n  EDGE_JWT_SECRET is missing; EDGE_IDENTITY "jwt" needs it',
  )
})

test('variables that container platforms make up for a service of that name are no problem', () => {
  const env = { EDGE_SERVICE_HOST: '10.0.0.1', EDGE_SERVICE_PORT_GRPC: '7402', EDGE_PORT: 'tcp://10.0.0.1:7402' }
  expect(problemsOf({ ...enough, ...env, EDGE_PORT_7402_TCP_ADDR: '10.0.0.1' })).toBe('no problem')
  expect(problemsOf({ ...enough, EDGE_PORT: '7402' })).toContain('EDGE_PORT is not a setting of edge')
})

describe('values', () => {
  test.each([
    ['EDGE_PONG_TIMEOUT_MS', '999'],
    ['EDGE_PONG_TIMEOUT_MS', '60001'],
    ['EDGE_PONG_TIMEOUT_MS', '1e4'],
    ['EDGE_PONG_TIMEOUT_MS', '1000.5'],
    ['EDGE_WORKERS', '-1'],
    ['EDGE_OUTBOX_BYTES', '64KiB'],
    ['EDGE_INSECURE', 'yes'],
    ['EDGE_LISTEN_ADDRESS', '7402'],
    ['EDGE_LISTEN_ADDRESS', 'host:70000'],
    ['EDGE_LISTEN_ADDRESS', '::1:7402'],
    ['EDGE_LISTEN_ADDRESS', 'http://host:1'],
    ['EDGE_REGISTRY_ADDRESSES', 'r1:7401,'],
    ['EDGE_REGISTRY_ADDRESSES', 'r1:0'],
    ['EDGE_REGISTRY_ADDRESSES', 'dns:///name'],
    ['EDGE_REGISTRY_ADDRESSES', 'dns:///a:1,b:2x'],
  ])('%s=%s is refused', (name, value) => {
    expect(problemsOf({ ...enough, [name]: value })).toContain(`${name} is "${value}"; expected`)
  })

  test.each([
    ['EDGE_LISTEN_ADDRESS', '[::1]:7402'],
    ['EDGE_LISTEN_ADDRESS', '0.0.0.0:0'],
    ['EDGE_REGISTRY_ADDRESSES', 'dns:///registry.internal:7401'],
    ['EDGE_REGISTRY_ADDRESSES', '127.0.0.1:1, [::1]:2'],
    ['EDGE_INSECURE', '0'],
  ])('%s=%s is taken', (name, value) => {
    expect(problemsOf({ ...enough, [name]: value })).toBe('no problem')
  })
})

test('the description shows what is in force and masks secrets', () => {
  const config = readConfig(definition, { ...enough, EDGE_JWT_SECRET: 'hush' })
  expect(describeConfig(definition, config)).toMatchObject({
    EDGE_PONG_TIMEOUT_MS: '10000',
    EDGE_METRICS_ADDRESS: '(unset)',
    EDGE_JWT_SECRET: '(set, not shown)',
  })
})

test('the table for the docs has a row for each setting', () => {
  const rows = settingsTable(definition).split('\n')
  expect(rows).toHaveLength(12)
  expect(rows[2]).toBe(
    '| `EDGE_PONG_TIMEOUT_MS` | whole milliseconds from 1000 to 60000 | `10000` | Longest wait for a pong before the session closes. |',
  )
  expect(rows[3]).toContain('| required |')
  expect(rows[6]).toContain('who they are \\| prove it')
})
