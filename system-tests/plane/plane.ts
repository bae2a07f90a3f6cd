import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Client } from 'cassandra-driver'
import { HealthDefinition } from 'nice-grpc-server-health'
import { queueHealthName } from '../../router/index.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { randomSuffix } from '../../service-kit/ids.ts'
import { silentLog } from '../../service-kit/log.ts'
import { systemRandom } from '../../service-kit/random.ts'
import type { CassandraAddresses } from '../servers/cassandra.ts'
import { lastLines } from '../servers/guarded-process.ts'
import { freePorts } from '../servers/ports.ts'
import type { SettledMessage } from '../story.ts'
import { ServiceProcess } from './service-process.ts'
import { readSessionRows } from './session-rows.ts'
import { settledFrom } from './settled-message.ts'

/** What a plane is made of. */
export interface PlaneOptions {
  readonly kafkaBrokers: readonly string[]
  readonly cassandra: CassandraAddresses
  /** For each registry how far its clock is ahead, in ms. */
  readonly registryClocksAheadMs: readonly number[]
  readonly routerCount: number
  readonly edgeCount: number
  /** Settings beyond those that a plane needs. */
  readonly registryEnv?: Readonly<Record<string, string>>
  readonly routerEnv?: Readonly<Record<string, string>>
  readonly edgeEnv?: Readonly<Record<string, string>>
  /** Where routers are told to reach the edge with this number, which listens at `address`. Default: there. */
  readonly advertise?: (edge: number, address: string) => string
  /** Done when all addresses are known, before anything runs. */
  readonly beforeStart?: () => Promise<void>
}

/** Registries, routers and edges, each in a process of its own, on topics and a keyspace that nobody else has. */
export interface Plane {
  readonly registries: readonly ServiceProcess[]
  readonly routers: readonly ServiceProcess[]
  readonly edges: readonly ServiceProcess[]
  /** Where routers listen, also after a restart. */
  readonly routerAddresses: readonly string[]
  /** What the names of its topics begin with. */
  readonly topicPrefix: string
  readonly keyspace: string
  /** Messages from the queue that the router has read and not settled. */
  inFlight(router: number): Promise<number>
  /** A metric of one service over all its labels. */
  metricOf(service: ServiceProcess, name: string): Promise<number>
  /** A metric over all its labels and all services of this kind that run. */
  metricSum(of: 'edges' | 'routers', name: string): Promise<number>
  /** Ids of the sessions that have rows in the store, newest first, by device. */
  sessionRows(): Promise<Map<string, string[]>>
  /** What routers have said their last word about, by all their starts. */
  settled(): SettledMessage[]
  /** Lines that tell of defects: level `error`, and whatever was written beside the structured log. */
  defects(): string[]
  /** The last lines of all logs that name one of these, for the same. */
  mentions(ids: readonly string[]): string[]
  /** The ends of all logs, for a person who looks for the reason of a failure. */
  lastWords(): string
  /** Kills what runs and removes the logs. */
  close(): Promise<void>
}

const partitionCount = 4
/** Lines of one service's log that are shown at a failure. */
const mentionsMax = 20
const servingTimeoutMs = 60_000
/** `SERVING` of the health protocol. */
const serving = 1
/** Set to anything to look at the logs after a run. */
const keepLogsVariable = 'PUSHPLANE_TEST_KEEP_LOGS'

const entryOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** Starts all services side by side, as a machine that boots does. Resolves when each says that it is ready. */
export async function startPlane(options: PlaneOptions): Promise<Plane> {
  const { kafkaBrokers, cassandra, registryClocksAheadMs, routerCount, edgeCount } = options
  const folder = await mkdtemp(join(tmpdir(), 'pushplane-plane-'))
  const suffix = randomSuffix(systemRandom, 8)
  const topicPrefix = `plane-${suffix}.`
  const keyspace = `plane_${suffix}`
  // Whoever is dialled by an address keeps its port over restarts.
  const ports = await freePorts(registryClocksAheadMs.length + routerCount + edgeCount)
  const addresses = ports.map((port) => `127.0.0.1:${port}`)
  const registryAddresses = addresses.slice(0, registryClocksAheadMs.length)
  const routerAddresses = addresses.slice(registryClocksAheadMs.length, registryClocksAheadMs.length + routerCount)
  // A restarted edge is another edge at the address of the one before.
  const edgeAddresses = addresses.slice(registryClocksAheadMs.length + routerCount)

  const registries = registryClocksAheadMs.map((aheadMs, index) => {
    const shifted = aheadMs !== 0
    return new ServiceProcess({
      name: `registry-${index + 1}`,
      entry: entryOf(shifted ? './registry-with-shifted-clock.ts' : '../../registry/main.ts'),
      readyPhrase: 'registry ready',
      folder,
      env: {
        REGISTRY_LISTEN_ADDRESS: registryAddresses[index] ?? '',
        REGISTRY_CASSANDRA_CONTACT_POINTS: cassandra.contactPoints.join(','),
        REGISTRY_CASSANDRA_PORT: String(cassandra.port),
        REGISTRY_CASSANDRA_LOCAL_DATA_CENTER: cassandra.localDataCenter,
        REGISTRY_CASSANDRA_KEYSPACE: keyspace,
        REGISTRY_CASSANDRA_CREATE_KEYSPACE: 'true',
        REGISTRY_CASSANDRA_REPLICATION_FACTOR: '1',
        ...options.registryEnv,
        ...(shifted && { CLOCK_AHEAD_MS: String(aheadMs) }),
      },
    })
  })
  const routers = routerAddresses.map(
    (address, index) =>
      new ServiceProcess({
        name: `router-${index + 1}`,
        entry: entryOf('../../router/main.ts'),
        readyPhrase: 'router ready',
        folder,
        env: {
          ROUTER_LISTEN_ADDRESS: address,
          ROUTER_REGISTRY_ADDRESSES: registryAddresses.join(','),
          ROUTER_KAFKA_BROKERS: kafkaBrokers.join(','),
          ROUTER_KAFKA_TOPIC_PREFIX: topicPrefix,
          ROUTER_KAFKA_PARTITION_COUNT: String(partitionCount),
          ROUTER_KAFKA_REPLICATION_FACTOR: '1',
          ROUTER_ALLOW_WEAK_DURABILITY: 'true',
          // Delivered messages are told at this level.
          ROUTER_LOG_LEVEL: 'debug',
          ROUTER_METRICS_ADDRESS: '127.0.0.1:0',
          ...options.routerEnv,
        },
      }),
  )
  const edges = edgeAddresses.map(
    (address, index) =>
      new ServiceProcess({
        name: `edge-${index + 1}`,
        entry: entryOf('../../edge/main.ts'),
        readyPhrase: 'edge ready',
        folder,
        env: {
          EDGE_NAME: `edge-${index + 1}`,
          EDGE_LISTEN_ADDRESS: address,
          EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
          EDGE_REGISTRY_ADDRESSES: registryAddresses.join(','),
          EDGE_ROUTER_ADDRESSES: routerAddresses.join(','),
          EDGE_AUTH: 'dev',
          // Devices of these tests come back within seconds, as often as otherwise in hours.
          EDGE_TAKEOVERS_MAX: '100',
          EDGE_METRICS_ADDRESS: '127.0.0.1:0',
          ...(options.advertise && { EDGE_ADVERTISE_ADDRESS: options.advertise(index, address) }),
          ...options.edgeEnv,
        },
      }),
  )
  const services = [...registries, ...routers, ...edges]

  async function close(): Promise<void> {
    await Promise.all(services.map((service) => (service.running ? service.kill() : undefined)))
    await dropKeyspace(cassandra, keyspace)
    if (process.env[keepLogsVariable]) process.stderr.write(`logs of the plane are kept in ${folder}\n`)
    else await rm(folder, { recursive: true, force: true })
  }

  try {
    await options.beforeStart?.()
    await startAll(services)
    await Promise.all(routerAddresses.map((address) => untilServing(address)))
  } catch (error) {
    await close()
    throw error
  }

  return {
    registries,
    routers,
    edges,
    routerAddresses,
    topicPrefix,
    keyspace,
    inFlight: (router) => metricSum(routers.slice(router, router + 1), 'push_router_in_flight'),
    metricOf: (service, name) => metricSum([service], name),
    metricSum: (of, name) => metricSum({ edges, routers }[of], name),
    sessionRows: () => readSessionRows(cassandra, keyspace),
    settled: () => routers.flatMap((router) => router.lines().flatMap((line) => settledFrom(line) ?? [])),
    defects: () =>
      services.flatMap((service) => [
        ...service
          .lines()
          .filter(({ level }) => level === 'error')
          .map(({ phrase, facts }) => `${service.name}: ${phrase} ${JSON.stringify(facts)}`),
        ...service.words().map((words) => `${service.name}: ${words}`),
      ]),
    mentions: (ids) =>
      services.flatMap((service) =>
        service
          .lines()
          .filter(({ facts }) => Object.values(facts).some((fact) => ids.includes(String(fact))))
          .slice(-mentionsMax)
          .map(
            ({ time, phrase, facts }) => `${new Date(time).toISOString()} ${service.name}: ${phrase} ${JSON.stringify(facts)}`,
          ),
      ),
    lastWords: () =>
      services
        .map((service) => `--- ${service.name}\n${service.logFiles.map((file) => lastLines(file, 8)).join('\n')}`)
        .join('\n'),
    close,
  }
}

/** Leaves the server as it was found: each table costs it memory for as long as it runs. One that is gone or stuck is no matter here. */
async function dropKeyspace({ contactPoints, port, localDataCenter }: CassandraAddresses, keyspace: string): Promise<void> {
  const client = new Client({ contactPoints: [...contactPoints], localDataCenter, protocolOptions: { port } })
  try {
    await client.execute(`DROP KEYSPACE IF EXISTS ${keyspace}`, [], { prepare: false, readTimeout: 20_000 })
  } catch (error) {
    process.stderr.write(`keyspace ${keyspace} is left behind: ${error instanceof Error ? error.message : String(error)}\n`)
  } finally {
    await client.shutdown()
  }
}

async function metricSum(services: readonly ServiceProcess[], name: string): Promise<number> {
  const line = new RegExp(`^${name}(?:\\{.*\\})? ([\\d.e+-]+)$`, 'gm')
  const texts = await Promise.all(services.filter(({ running }) => running).map((service) => service.metrics()))
  return texts.flatMap((text) => [...text.matchAll(line)]).reduce((sum, [, count]) => sum + Number(count), 0)
}

/** All at once; all have ended their start, well or not, before the first failure is told. */
async function startAll(services: readonly ServiceProcess[]): Promise<void> {
  const starts = await Promise.allSettled(services.map((service) => service.start()))
  for (const start of starts) if (start.status === 'rejected') throw start.reason
}

/** Ready tells that a router serves; this, that registry and queue answer it as well. */
export async function untilServing(routerAddress: string): Promise<void> {
  const connection = connectGrpc({ addresses: routerAddress, log: silentLog, clock: systemClock, reconnectCapMs: 500 })
  try {
    const health = connection.client(HealthDefinition)
    for (const service of ['', queueHealthName]) {
      const giveUpAt = Date.now() + servingTimeoutMs
      const serves = async () => (await health.check({ service }, { deadlineMs: 1_000 })).status === serving
      while (!(await serves().catch(() => false))) {
        if (Date.now() > giveUpAt) throw new Error(`the router at ${routerAddress} does not become healthy: "${service}"`)
        await delay(100)
      }
    }
  } finally {
    connection.close()
  }
}
