import { expect, inject, test } from 'vitest'
import { probeNode } from './cassandra.ts'
import { probeBroker } from './kafka.ts'
import { freePorts } from './ports.ts'
import { openSharedServers, parseAddresses } from './shared-servers.ts'

const silent = () => undefined

test('every test is given a Kafka and a Cassandra that answer', async () => {
  const brokers = inject('kafkaBrokers')
  expect(brokers.length).toBeGreaterThan(0)
  for (const broker of brokers) await probeBroker(broker)
  const { contactPoints, port } = inject('cassandra')
  expect(contactPoints.length).toBeGreaterThan(0)
  for (const host of contactPoints) await probeNode(host, port)
})

test('servers named by the environment are used, and not ended', async () => {
  const brokers = inject('kafkaBrokers')
  const cassandra = inject('cassandra')
  const env = {
    PUSHPLANE_TEST_KAFKA: brokers.join(','),
    PUSHPLANE_TEST_CASSANDRA: cassandra.contactPoints.map((host) => `${host}:${cassandra.port}`).join(','),
  }
  const shared = await openSharedServers({ kafka: 1, cassandra: 1, env, say: silent })
  expect(shared.kafkaBrokers).toEqual(brokers)
  expect(shared.cassandra).toEqual(cassandra)
  expect(shared.nodes).toEqual([])
  await shared.close()
  await probeBroker(brokers[0] ?? '')
})

test('a named server that does not answer is told by its variable', async () => {
  const [port] = await freePorts(1)
  const { contactPoints, port: cassandraPort } = inject('cassandra')
  const env = { PUSHPLANE_TEST_KAFKA: `127.0.0.1:${port}`, PUSHPLANE_TEST_CASSANDRA: `${contactPoints[0]}:${cassandraPort}` }
  await expect(openSharedServers({ kafka: 1, cassandra: 1, env, say: silent })).rejects.toThrow(
    `PUSHPLANE_TEST_KAFKA names 127.0.0.1:${port}, which does not answer`,
  )
})

test('addresses are host:port, separated by commas', () => {
  expect(parseAddresses('X', '127.0.0.1:9042, 127.0.0.2:9042')).toEqual([
    { host: '127.0.0.1', port: 9042 },
    { host: '127.0.0.2', port: 9042 },
  ])
  expect(() => parseAddresses('X', 'localhost')).toThrow('X is "localhost"; expected host:port')
  expect(() => parseAddresses('X', '127.0.0.1:9042,')).toThrow('expected host:port')
})
