import { expect, test } from 'vitest'
import { contactPointsOf, readRegistryConfig } from './config.ts'

const problemsOf = (env: Record<string, string>) => {
  try {
    readRegistryConfig(env)
  } catch (error) {
    return error instanceof Error ? error.message.split('\n').slice(1) : []
  }
  return []
}

test('a registry starts on a local Cassandra with nothing set', () => {
  expect(readRegistryConfig({})).toMatchObject({
    listenAddress: '127.0.0.1:7401',
    store: 'cassandra',
    cassandraContactPoints: '127.0.0.1',
    cassandraPort: 9042,
    cassandraKeyspace: 'push',
    cassandraCreateKeyspace: false,
    cassandraReplicationFactor: 3,
    edgeLeasePeriodMs: 30_000,
    inboxMessagesMax: 100,
    inboxBytesMax: 512 * 1024,
    inboxCountedDevicesMax: 65_536,
  })
})

test('the file store needs a file', () => {
  expect(problemsOf({ REGISTRY_STORE: 'sqlite' })).toEqual([
    '  REGISTRY_SQLITE_PATH is missing; REGISTRY_STORE=sqlite needs a file',
  ])
  expect(readRegistryConfig({ REGISTRY_STORE: 'sqlite', REGISTRY_SQLITE_PATH: 'r.sqlite' }).sqlitePath).toBe('r.sqlite')
})

test('plain text beyond this machine must be asked for', () => {
  const [problem] = problemsOf({ REGISTRY_LISTEN_ADDRESS: '0.0.0.0:7401' })
  expect(problem).toContain('set REGISTRY_INSECURE=true')
  expect(problemsOf({ REGISTRY_LISTEN_ADDRESS: '0.0.0.0:7401', REGISTRY_INSECURE: 'true' })).toEqual([])
})

test('settings that do not fit together are told at once', () => {
  const problems = problemsOf({
    REGISTRY_CASSANDRA_PASSWORD: 'secret-word',
    REGISTRY_CASSANDRA_CONTACT_POINTS: '10.0.0.1, 10.0.0.2:9043,not a host',
    REGISTRY_EDGE_LEASE_PERIOD_MS: '3000',
  })
  expect(problems).toEqual([
    '  REGISTRY_CASSANDRA_USER is missing; a password needs a user',
    expect.stringContaining('REGISTRY_CASSANDRA_CONTACT_POINTS has "10.0.0.1", and without TLS anybody could read along'),
    '  REGISTRY_CASSANDRA_CONTACT_POINTS has "not a host"; expected host or host:port, with commas between',
    '  REGISTRY_EDGE_READ_PERIOD_MS must be at most a third of REGISTRY_EDGE_LEASE_PERIOD_MS',
  ])
  expect(problems.join()).not.toContain('secret-word')
})

test('a keyspace and a data centre that would be no plain names are refused', () => {
  expect(problemsOf({ REGISTRY_CASSANDRA_KEYSPACE: 'push; DROP', REGISTRY_CASSANDRA_LOCAL_DATA_CENTER: "dc'1" })).toHaveLength(2)
})

test('contact points are taken apart', () => {
  expect(contactPointsOf('a, b:9043 ,c')).toEqual(['a', 'b:9043', 'c'])
})

test('Cassandra is reached in plain text on this machine only, unless it is allowed; parts of TLS go together', () => {
  const problemsOf = (env: Record<string, string>) => {
    try {
      readRegistryConfig(env)
      return []
    } catch (error) {
      return String(error instanceof Error ? error.message : error)
        .split('\n')
        .slice(1)
    }
  }
  const remote = { REGISTRY_CASSANDRA_CONTACT_POINTS: '127.0.0.1,cassandra-1:9142' }
  expect(problemsOf({})).toEqual([])
  expect(problemsOf(remote)).toEqual([expect.stringContaining('REGISTRY_CASSANDRA_CONTACT_POINTS has "cassandra-1:9142"')])
  expect(problemsOf({ ...remote, REGISTRY_CASSANDRA_TLS: 'true' })).toEqual([])
  expect(problemsOf({ ...remote, REGISTRY_INSECURE: 'true' })).toEqual([])
  expect(problemsOf({ ...remote, REGISTRY_STORE: 'sqlite', REGISTRY_SQLITE_PATH: 'x' })).toEqual([])
  expect(problemsOf({ REGISTRY_CASSANDRA_TLS_CERT_FILE: 'x' })).toEqual([
    expect.stringContaining('REGISTRY_CASSANDRA_TLS is not set'),
    expect.stringContaining('go together'),
  ])
})
