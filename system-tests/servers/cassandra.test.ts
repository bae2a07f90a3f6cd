import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Client } from 'cassandra-driver'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type CassandraServers, probeNode, startCassandra } from './cassandra.ts'

let folder: string
let cassandra: CassandraServers

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cassandra-test-'))
  cassandra = await startCassandra({ nodes: 1, folder, temporary: true })
})

afterAll(async () => {
  await cassandra?.close()
  await rm(folder, { recursive: true, force: true })
})

async function run(query: string) {
  const { contactPoints, port, localDataCenter } = cassandra
  const client = new Client({ contactPoints, protocolOptions: { port }, localDataCenter })
  try {
    return (await client.execute(query)).rows
  } finally {
    await client.shutdown()
  }
}

test('a node keeps schema and rows over a stop and a kill, on the same address', async () => {
  const [node] = cassandra.nodes
  if (node === undefined) throw new Error('no node')
  await run(`CREATE KEYSPACE kept WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': 1}`)
  await run('CREATE TABLE kept.letters (letter text PRIMARY KEY)')
  await run(`INSERT INTO kept.letters (letter) VALUES ('a')`)
  const firstPid = node.pid

  await node.stop()
  expect(node.pid).toBeUndefined()
  await expect(probeNode('127.0.0.1', cassandra.port)).rejects.toThrow()
  await node.restart()
  expect(node.pid).not.toBe(firstPid)
  expect(await run('SELECT letter FROM kept.letters')).toMatchObject([{ letter: 'a' }])

  await run(`INSERT INTO kept.letters (letter) VALUES ('b')`)
  // The commit log is synced every second: what is older survives a kill.
  await delay(1_500)
  await node.kill()
  await node.restart()
  expect((await run('SELECT letter FROM kept.letters')).map((row) => row.get('letter')).sort()).toEqual(['a', 'b'])
})
