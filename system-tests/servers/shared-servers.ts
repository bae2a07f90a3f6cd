import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import process from 'node:process'
import { type CassandraAddresses, localDataCenter, probeNode, startCassandra } from './cassandra.ts'
import { probeBroker, startKafka } from './kafka.ts'
import type { ServerNode } from './server-node.ts'

export interface SharedServers {
  readonly kafkaBrokers: string[]
  readonly cassandra: CassandraAddresses
  /** Those started here; none of those that were running before. */
  readonly nodes: readonly ServerNode[]
  /** Ends what was started here and removes its folder. */
  close(): Promise<void>
}

export interface SharedServersOptions {
  readonly kafka: 1 | 3
  readonly cassandra: 1 | 3
  /** Where `PUSHPLANE_TEST_KAFKA` and `PUSHPLANE_TEST_CASSANDRA` name running servers to use instead: `host:port[,…]`. */
  readonly env: NodeJS.ProcessEnv
  /** Gets a line about each server started. */
  readonly say: (line: string) => void
}

export const kafkaVariable = 'PUSHPLANE_TEST_KAFKA'
export const cassandraVariable = 'PUSHPLANE_TEST_CASSANDRA'

/** Starts a Kafka and a Cassandra side by side in a temporary folder, or takes those that the environment names. */
export async function openSharedServers(options: SharedServersOptions): Promise<SharedServers> {
  const givenKafka = options.env[kafkaVariable]
  const givenCassandra = options.env[cassandraVariable]
  let folder: string | undefined
  const closers: Array<() => Promise<void>> = []
  const nodes: ServerNode[] = []
  const close = async () => {
    await Promise.all(closers.map((closer) => closer()))
    if (folder !== undefined) await rm(folder, { recursive: true, force: true, maxRetries: 5 })
  }
  const started = async <T extends { readonly nodes: readonly ServerNode[]; close(): Promise<void> }>(
    name: string,
    starting: Promise<T>,
  ) => {
    const begun = performance.now()
    const servers = await starting
    closers.push(() => servers.close())
    nodes.push(...servers.nodes)
    const addresses = servers.nodes.map((node) => node.address).join(', ')
    options.say(`${name} ready on ${addresses} after ${((performance.now() - begun) / 1000).toFixed(1)} s`)
    return servers
  }

  if (!givenKafka || !givenCassandra) folder = await mkdtemp(join(tmpdir(), 'pushplane-servers-'))
  const inFolder = { folder: folder ?? '', temporary: true }
  const [kafka, cassandra] = await Promise.allSettled([
    givenKafka
      ? runningKafka(givenKafka)
      : started('Kafka', startKafka({ brokers: options.kafka, ...inFolder })).then(({ brokers }) => brokers),
    givenCassandra
      ? runningCassandra(givenCassandra)
      : started('Cassandra', startCassandra({ nodes: options.cassandra, ...inFolder })).then(
          ({ contactPoints, port, localDataCenter }): CassandraAddresses => ({ contactPoints, port, localDataCenter }),
        ),
  ])
  if (kafka.status === 'fulfilled' && cassandra.status === 'fulfilled') {
    return { kafkaBrokers: kafka.value, cassandra: cassandra.value, nodes, close }
  }
  await close()
  throw kafka.status === 'rejected' ? kafka.reason : cassandra.status === 'rejected' ? cassandra.reason : new Error('no server')
}

async function runningKafka(list: string): Promise<string[]> {
  const brokers = parseAddresses(kafkaVariable, list).map(({ host, port }) => `${host}:${port}`)
  await answers(kafkaVariable, brokers, (address) => probeBroker(address))
  return brokers
}

async function runningCassandra(list: string): Promise<CassandraAddresses> {
  const addresses = parseAddresses(cassandraVariable, list)
  const port = addresses[0]?.port ?? 0
  if (addresses.some((address) => address.port !== port))
    throw new Error(`${cassandraVariable} is "${list}"; expected one port on all nodes`)
  const contactPoints = addresses.map(({ host }) => host)
  await answers(cassandraVariable, contactPoints, (host) => probeNode(host, port))
  return { contactPoints, port, localDataCenter }
}

/** Reads `host:port[,host:port…]`. Throws with the variable's name when it is anything else. */
export function parseAddresses(variable: string, list: string): Array<{ host: string; port: number }> {
  return list.split(',').map((item) => {
    const match = /^([^:\s]+):(\d{1,5})$/.exec(item.trim())
    const [, host, port] = match ?? []
    if (host === undefined || port === undefined) throw new Error(`${variable} is "${list}"; expected host:port[,host:port…]`)
    return { host, port: Number(port) }
  })
}

async function answers(variable: string, names: readonly string[], probe: (name: string) => Promise<void>): Promise<void> {
  for (const name of names) {
    try {
      await probe(name)
    } catch (error) {
      throw new Error(
        `${variable} names ${name}, which does not answer: start it, or unset ${variable} to have servers started`,
        {
          cause: error,
        },
      )
    }
  }
}

export function sayOnStderr(line: string): void {
  process.stderr.write(`${line}\n`)
}
