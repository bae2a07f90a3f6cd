import { InboxServiceDefinition } from '../gen/push/internal/v1/inbox.ts'
import { ReceiptServiceDefinition } from '../gen/push/internal/v1/receipts.ts'
import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Closers } from '../service-kit/closers.ts'
import { descriptorSet } from '../service-kit/descriptor-set.ts'
import { readDialTls } from '../service-kit/dial-tls.ts'
import { serveGrpc } from '../service-kit/grpc-server.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { serveMetrics } from '../service-kit/metrics-server.ts'
import { namedFile } from '../service-kit/named-file.ts'
import type { Random } from '../service-kit/random.ts'
import type { Reloads } from '../service-kit/reloads.ts'
import { openServiceSecurity } from '../service-kit/service-security.ts'
import { createAccountDevices } from './account-devices.ts'
import { openCassandraStores } from './cassandra/stores.ts'
import { contactPointsOf, type RegistryConfig } from './config.ts'
import { createEdges } from './edges.ts'
import { createInbox } from './inbox.ts'
import { measuredStores } from './measured-stores.ts'
import { watchReadiness } from './readiness.ts'
import { createReceipts } from './receipts.ts'
import { createRegistryService } from './registry-service.ts'
import { registryRoles } from './roles.ts'
import { createServiceLimits } from './service-limits.ts'
import { createSessions } from './sessions.ts'
import { openSqliteStores } from './sqlite/stores.ts'
import type { RegistryStores } from './stores.ts'

/** What a registry is started with. */
export interface RegistryOptions {
  readonly config: RegistryConfig
  /** Its wall clock mints the epochs, and judges what the embedded store keeps. */
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Everything opened is added here. */
  readonly closers: Closers
  /** Has the certificate read again. */
  readonly reloads?: Reloads
}

/** A registry that runs. */
export interface Registry {
  /** Where it is reached, host:port. */
  readonly address: string
}

/** Opens the store, brings its schema up to date, and serves. Health tells whether the store answers and the clocks agree. */
export async function startRegistry(options: RegistryOptions): Promise<Registry> {
  const { config, clock, random, log, metrics, closers } = options

  const { tls } = openServiceSecurity({ ...options, prefix: 'REGISTRY_', role: 'registry' })
  const opened = await openStores(options)
  closers.add('registry store', () => opened.close())
  const stores = measuredStores(opened, clock, metrics)
  const limits = createServiceLimits({ itemsMax: config.itemsMax, storeStepsMax: config.storeStepsMax, metrics })
  const edges = createEdges({
    store: stores.edges,
    limits: limits.leases,
    leasePeriodMs: config.edgeLeasePeriodMs,
    readPeriodMs: config.edgeReadPeriodMs,
    watchersMax: config.edgeWatchersMax,
    clock,
    log,
    metrics,
  })
  closers.add('edge leases', () => edges.close())
  await edges.readNow()
  const sessions = createSessions({ store: stores.sessions, edgeStateOf: edges.stateOf, limits, clock, log, metrics })
  const accountDevices = createAccountDevices({ store: stores.sessions, limits, clock, metrics })
  const inbox = createInbox({
    store: stores.inbox,
    limits,
    bounds: { messagesMax: config.inboxMessagesMax, bytesMax: config.inboxBytesMax },
    countedDevicesMax: config.inboxCountedDevicesMax,
    clock,
    random,
    log,
    metrics,
  })
  const receipts = createReceipts({ store: stores.receipts, limits, clock, log, metrics })

  const services = [RegistryServiceDefinition, InboxServiceDefinition, ReceiptServiceDefinition]
  const server = await serveGrpc({
    address: config.listenAddress,
    tls,
    roles: registryRoles,
    log,
    metrics,
    clock,
    maxConnectionAgeMs: config.maxConnectionAgeMs,
    reflection: config.reflection
      ? { descriptorSet: descriptorSet(), services: services.map(({ fullName }) => fullName) }
      : undefined,
    services(server) {
      server.add(RegistryServiceDefinition, createRegistryService(sessions, accountDevices, edges))
      server.add(InboxServiceDefinition, inbox)
      server.add(ReceiptServiceDefinition, receipts)
    },
  })
  closers.add('grpc server', () => server.drain(config.drainGraceMs))
  for (const name of ['', RegistryServiceDefinition.fullName]) server.setServing(name, false)

  const readiness = await watchReadiness({
    storeClockMicros: stores.edges.clockMicros,
    storeAnswers: () => edges.reading,
    report(ready) {
      for (const name of ['', RegistryServiceDefinition.fullName]) server.setServing(name, ready)
      log.info(ready ? 'registry takes calls' : 'registry is not ready', { store_answers: edges.reading })
    },
    clock,
    log,
    metrics,
  })
  closers.add('readiness', () => readiness.close())

  if (config.metricsAddress !== undefined) {
    const metricsServer = await serveMetrics(metrics, config.metricsAddress)
    closers.add('metrics server', () => metricsServer.close())
    log.info('metrics served', { address: metricsServer.address })
  }
  log.info('registry ready', { address: server.address, store: config.store })
  return { address: server.address }
}

async function openStores({ config, clock, random, log, metrics }: RegistryOptions): Promise<RegistryStores> {
  if (config.store === 'sqlite') {
    if (config.sqlitePath === undefined) throw new Error('the config has no path for the sqlite store')
    return openSqliteStores({ path: config.sqlitePath, clock, log, metrics })
  }
  return openCassandraStores(
    {
      contactPoints: contactPointsOf(config.cassandraContactPoints),
      port: config.cassandraPort,
      localDataCenter: config.cassandraLocalDataCenter,
      keyspace: config.cassandraKeyspace,
      createKeyspace: config.cassandraCreateKeyspace,
      replicationFactor: config.cassandraReplicationFactor,
      user: config.cassandraUser,
      password: config.cassandraPassword,
      tls: config.cassandraTls
        ? {
            ...readDialTls({
              authorities: namedFile('REGISTRY_CASSANDRA_TLS_CA_FILE', config.cassandraTlsCaFile),
              certificate: namedFile('REGISTRY_CASSANDRA_TLS_CERT_FILE', config.cassandraTlsCertFile),
              key: namedFile('REGISTRY_CASSANDRA_TLS_KEY_FILE', config.cassandraTlsKeyFile),
            }),
            verifyHost: config.cassandraTlsVerifyHost,
          }
        : undefined,
      readTimeoutMs: config.cassandraReadTimeoutMs,
      connectTimeoutMs: config.cassandraConnectTimeoutMs,
    },
    { clock, random, log, metrics },
  )
}
