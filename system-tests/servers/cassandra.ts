import { mkdir, rm, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Client, policies, types } from 'cassandra-driver'
import { cassandraJvmArgs, cassandraLogging, cassandraYaml } from './cassandra-settings.ts'
import { fetchJars } from './fetch.ts'
import { freePorts } from './ports.ts'
import { launchNode, type ServerNode, type StartedNode, withPortRetry } from './server-node.ts'
import { findCommand } from './tools.ts'

export interface CassandraOptions {
  /** Three listen on 127.0.0.1, .2 and .3, which Linux has without any set-up. */
  readonly nodes: 1 | 3
  /** Each node gets a folder in it; what an earlier start left in those is removed. */
  readonly folder: string
  /** Native port and storage port, the same on all nodes; default: free ones, and others when one is taken meanwhile. */
  readonly ports?: readonly number[]
  /** Has `folder` removed when this process dies without having stopped the nodes. Default false. */
  readonly temporary?: boolean
  /** Clients come over TLS and log in, at first as `cassandra` with that password. Default: plain text, and nobody logs in. */
  readonly security?: CassandraSecurity
}

/** A node's certificate. */
export interface CassandraSecurity {
  readonly certificate: string
  readonly key: string
  readonly authorities: string
}

/** What a driver needs to connect. */
export interface CassandraAddresses {
  readonly contactPoints: string[]
  readonly port: number
  readonly localDataCenter: string
}

export interface CassandraServers extends CassandraAddresses {
  /**
   * `stop()` of a node keeps every write. `kill()` may lose those that this node took in the last tenth of a second:
   * the commit log is periodic, as is usual, and other replicas are what protects a write.
   */
  readonly nodes: readonly ServerNode[]
  /** Kills all nodes. */
  close(): Promise<void>
}

/** The one that `SimpleSnitch` puts every node in. */
export const localDataCenter = 'datacenter1'

/** A cold, busy machine of two cores takes its time to let three nodes hear of one another. */
const quorumTimeoutMs = 90_000

/** Starts Cassandra and waits until every node answers CQL and, of three, can write to all of them. */
export async function startCassandra(options: CassandraOptions): Promise<CassandraServers> {
  const classPath = (await fetchJars('cassandra')).join(delimiter)
  const hosts = Array.from({ length: options.nodes }, (_, index) => `127.0.0.${index + 1}`)
  if (options.ports !== undefined) return startOn(hosts, options.ports, classPath, options)
  return withPortRetry(async () => startOn(hosts, await freePorts(2, hosts), classPath, options))
}

async function startOn(
  hosts: string[],
  ports: readonly number[],
  classPath: string,
  options: CassandraOptions,
): Promise<CassandraServers> {
  const [nativePort, storagePort] = ports
  if (nativePort === undefined || storagePort === undefined) throw new Error('Cassandra needs a native and a storage port')
  // Of this start alone, so that an answer from someone else's node is known as such.
  const clusterName = `pushplane-${process.pid}-${nativePort}`
  const launchCommand = await commandBeforeJava()
  const nodes: StartedNode[] = []
  const close = async () => {
    await Promise.all(nodes.map((node) => node.kill()))
  }

  const launch = async (host: string, index: number) => {
    const name = `cassandra-${index + 1}`
    const folder = join(options.folder, name)
    await rm(folder, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    await writeFile(
      join(folder, 'cassandra.yaml'),
      cassandraYaml({ clusterName, hosts, index, nativePort, storagePort, secured: options.security !== undefined }),
    )
    if (options.security)
      await writeFile(join(folder, 'keystore.pem'), options.security.key + options.security.certificate, { mode: 0o600 })
    await writeFile(join(folder, 'logback.xml'), cassandraLogging)
    const [command = 'java', ...before] = [...launchCommand, 'java']
    return launchNode({
      name,
      address: `${host}:${nativePort}`,
      folder,
      command,
      args: [
        ...before,
        ...cassandraJvmArgs,
        '-Dlogback.configurationFile=logback.xml',
        `-Dcassandra.config=${pathToFileURL(join(folder, 'cassandra.yaml'))}`,
        '-Dcassandra.storagedir=.',
        '-Dcassandra.logdir=logs',
        '-cp',
        classPath,
        'org.apache.cassandra.service.CassandraDaemon',
      ],
      ...(options.temporary ? { removeWhenOrphaned: options.folder } : {}),
      probe: () => probeNode(host, nativePort, clusterName, options.security),
    })
  }
  try {
    const launched = await Promise.allSettled(hosts.map(launch))
    for (const result of launched) if (result.status === 'fulfilled') nodes.push(result.value)
    for (const result of launched) if (result.status === 'rejected') throw result.reason
    await Promise.all(nodes.map((node) => node.ready()))
    if (hosts.length > 1) await provideQuorum(hosts, nativePort)
    return { contactPoints: hosts, port: nativePort, localDataCenter, nodes, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** Asks one node for its name over CQL. Throws unless it answers, and, where wanted, as a member of that cluster. */
export async function probeNode(host: string, port: number, clusterName?: string, security?: CassandraSecurity): Promise<void> {
  const client = clientOf(host, port, security)
  try {
    const row = (await client.execute('SELECT cluster_name FROM system.local')).first()
    const found: unknown = row?.get('cluster_name')
    if (clusterName !== undefined && found !== clusterName)
      throw new Error(`${host}:${port} belongs to another cluster, ${String(found)}`)
  } finally {
    await client.shutdown()
  }
}

/** Returns when every node, as coordinator, reaches all others: nodes answer before they have heard of one another. */
async function provideQuorum(hosts: readonly string[], port: number): Promise<void> {
  const giveUpAt = performance.now() + quorumTimeoutMs
  const pauseMs = 500
  const clients = hosts.map((host) => clientOf(host, port))
  const [first] = clients
  if (first === undefined) return
  const keyspace = 'warm_up'
  try {
    for (;;) {
      try {
        await first.execute(
          `CREATE KEYSPACE IF NOT EXISTS ${keyspace} WITH replication = {'class': 'NetworkTopologyStrategy', '${localDataCenter}': ${hosts.length}}`,
        )
        await first.execute(`CREATE TABLE IF NOT EXISTS ${keyspace}.nodes (name text PRIMARY KEY)`)
        for (const [index, client] of clients.entries()) {
          const consistency = types.consistencies.all
          await client.execute(`INSERT INTO ${keyspace}.nodes (name) VALUES (?)`, [`node-${index}`], { consistency })
        }
        break
      } catch (error) {
        if (performance.now() > giveUpAt) throw new Error('the Cassandra nodes do not reach one another', { cause: error })
        await delay(pauseMs)
      }
    }
    await first.execute(`DROP KEYSPACE ${keyspace}`)
  } finally {
    await Promise.all(clients.map((client) => client.shutdown()))
  }
}

/** A client that talks to this one node only. */
function clientOf(host: string, port: number, security?: CassandraSecurity): Client {
  return new Client({
    ...(security && {
      sslOptions: { ca: security.authorities, rejectUnauthorized: true },
      credentials: { username: 'cassandra', password: 'cassandra' },
    }),
    contactPoints: [host],
    localDataCenter,
    protocolOptions: { port },
    policies: {
      loadBalancing: new policies.loadBalancing.AllowListPolicy(new policies.loadBalancing.RoundRobinPolicy(), [
        `${host}:${port}`,
      ]),
    },
    socketOptions: { connectTimeout: 2_000, readTimeout: 10_000 },
  })
}

/**
 * As root Cassandra locks its whole heap in memory, which costs 270 MB a node. Where Linux has the tools, it is
 * started without that right and with a small limit. Both replace themselves by the next command: the pid stays.
 */
async function commandBeforeJava(): Promise<string[]> {
  const before: string[] = []
  if (await findCommand('prlimit')) before.push('prlimit', '--memlock=65536:65536', '--')
  if (process.getuid?.() === 0 && (await findCommand('setpriv')))
    before.push('setpriv', '--bounding-set', '-ipc_lock', '--inh-caps', '-ipc_lock')
  return before
}
