import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { DeviceServiceDefinition } from '../gen/push/v1/devices.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Closers } from '../service-kit/closers.ts'
import { descriptorSet } from '../service-kit/descriptor-set.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { serveGrpc } from '../service-kit/grpc-server.ts'
import { jwtTokens } from '../service-kit/jwt-tokens.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { serveMetrics } from '../service-kit/metrics-server.ts'
import type { Random } from '../service-kit/random.ts'
import type { Reloads } from '../service-kit/reloads.ts'
import { openServiceSecurity } from '../service-kit/service-security.ts'
import { createAcceptance } from './api/acceptance.ts'
import { createDeadLetterCalls } from './api/dead-letters.ts'
import { createDevicesService } from './api/devices-service.ts'
import { createEdgeDrainCalls } from './api/edge-drains.ts'
import { createFanOutCheck } from './api/fan-out.ts'
import { createMessageQueries } from './api/message-queries.ts'
import { createOperationsService } from './api/operations-service.ts'
import { guardOperations, recordDenied } from './api/operator-actions.ts'
import { createPermissions } from './api/permissions.ts'
import { openPolicy } from './api/policy.ts'
import { createPublishService } from './api/publish-service.ts'
import { createUplinkService } from './api/uplink-service.ts'
import { createAuditLog } from './audit/audit-log.ts'
import { openAuditJournal } from './audit/journal-file.ts'
import type { RouterConfig } from './config.ts'
import { createDispatcher } from './dispatch/dispatcher.ts'
import { watchEdgeDirectory } from './dispatch/edge-directory.ts'
import { createEdgeLinks } from './dispatch/edge-links.ts'
import { createFlushes } from './dispatch/flush.ts'
import { createInbox } from './dispatch/inbox.ts'
import { createLateAnswers } from './dispatch/late-answers.ts'
import { createLeftAccounts } from './dispatch/left-accounts.ts'
import { createLookups } from './dispatch/lookups.ts'
import { createOfflinePath } from './dispatch/offline-path.ts'
import { createReceipts } from './dispatch/receipts.ts'
import { createRouteCache } from './dispatch/route-cache.ts'
import { createStateRecorder } from './dispatch/state-recorder.ts'
import { openQueue } from './queue/open-queue.ts'
import { topicNames } from './queue/topics.ts'
import { routerRoles } from './roles.ts'

/** What a router is started with. */
export interface RouterOptions {
  readonly config: RouterConfig
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Everything opened is added here. */
  readonly closers: Closers
  /** The queue's consumers cannot go on: the process must end, so that another one takes over. */
  readonly onFatal: (cause: unknown) => void
  /** Has certificate and policy read again. */
  readonly reloads?: Reloads
}

/** A router that runs. */
export interface Router {
  /** Where it is reached, host:port. */
  readonly address: string
}

/** Name under which health checks ask for the queue alone: a router serves direct messages without it. */
export const queueHealthName = 'push.queue'

/** How long a session may take to answer that mail waits, in ms. */
const pokeTimeoutMs = 15_000

/** How often readiness is looked at, in ms. */
const readinessPeriodMs = 250

/** Starts a router. It serves at once, whether registry and queue answer or not; health tells whether they do. */
export async function startRouter(options: RouterOptions): Promise<Router> {
  const { config, clock, random, log, metrics, closers } = options
  const parts = { clock, random, log, metrics }

  const { tls, transport } = openServiceSecurity({ ...options, prefix: 'ROUTER_', role: 'router' })
  const policy =
    config.policyFile === undefined ? undefined : openPolicy(config.policyFile, { ...parts, reloads: options.reloads })
  if (policy) closers.add('policy', () => policy.close())
  const permissions = createPermissions(() => policy?.value, clock)
  const registry = connectGrpc({ addresses: config.registryAddresses, transport: transport.to('registry'), ...parts })
  closers.add('registry connection', () => registry.close())
  const directory = watchEdgeDirectory({ registry, ...parts })
  closers.add('edge watch', () => directory.close())
  const cache = createRouteCache({ ...parts, entryCountMax: config.routeCacheEntryCountMax, entryTtlMs: config.routeCacheTtlMs })
  const lookups = createLookups({ registry, cache, metrics, callDeadlineMs: config.lookupDeadlineMs })
  const receipts = createReceipts({
    registry,
    ...parts,
    callDeadlineMs: config.lookupDeadlineMs,
    publishCopy: (key, value) => queue.publishReceipt(key, value),
  })
  const recorder = createStateRecorder(receipts, clock)
  const inbox = createInbox({ registry, metrics, callDeadlineMs: config.lookupDeadlineMs })
  const lateAnswers = createLateAnswers({
    registry,
    inbox,
    receipts,
    recorder,
    ...parts,
    callDeadlineMs: config.lookupDeadlineMs,
  })
  const links = createEdgeLinks({
    ...parts,
    transport,
    directory,
    onLateOutcome: ({ deviceId, messageId, outcome }) =>
      lateAnswers.takeSoon({
        deviceId,
        messageId,
        kind: outcome.kind,
        answeredTime: outcome.answeredTime,
        detail: outcome.detail,
        result: outcome.result,
      }),
  })
  closers.add('edge links', () => links.close())
  const leftAccounts = createLeftAccounts({ registry, metrics, callDeadlineMs: config.lookupDeadlineMs })
  const queue = openQueue(config, { ...parts, onFatal: options.onFatal })
  closers.add('queue', () => queue.close())
  const audit = createAuditLog({
    ...parts,
    queue,
    journal: config.auditPath === undefined ? undefined : openAuditJournal(config.auditPath),
    journalRecordsMax: config.auditJournalRecordsMax,
  })
  closers.add('audit log', () => audit.close())
  if (config.auditPath === undefined && config.kafkaBrokers !== undefined)
    log.warn('without a journal, recovery and what operators do are refused while Kafka is away (ROUTER_AUDIT_PATH)', {})
  const topics = topicNames(config.kafkaTopicPrefix)
  const dispatcher = createDispatcher({
    ...parts,
    queue,
    topicOf: (lane) => topics.lanes[lane],
    cache,
    lookups,
    links,
    directory,
    recorder,
    lateAnswers,
    leftAccounts,
    offlinePath: createOfflinePath({ ...parts, inbox, recorder, lookups, links, directory, pokeTimeoutMs }),
    limits: config,
  })

  const flushes = createFlushes({
    ...parts,
    inbox,
    recorder,
    links,
    leftAccounts,
    deadLetter: dispatcher.deadLetter,
    ackTimeoutMs: config.ackTimeoutMs,
    flushesMax: config.flushesMax,
  })

  const queries = createMessageQueries({
    ...parts,
    permissions,
    audit,
    registry,
    receipts,
    callDeadlineMs: config.lookupDeadlineMs,
    watchCountMax: config.watchCountMax,
  })

  const server = await serveGrpc({
    address: config.listenAddress,
    tls,
    roles: routerRoles,
    onDenied: (call) => recordDenied(audit, call),
    tokens:
      config.jwtSecret === undefined
        ? undefined
        : jwtTokens({ secret: config.jwtSecret, issuer: config.jwtIssuer, audience: config.jwtAudience, clock }),
    ...parts,
    reflection: config.reflection
      ? {
          descriptorSet: descriptorSet(),
          services: [PublishServiceDefinition.fullName, DeviceServiceDefinition.fullName, OperationsServiceDefinition.fullName],
        }
      : undefined,
    services(server) {
      server.add(
        PublishServiceDefinition,
        createPublishService({
          ...parts,
          permissions,
          checkFanOut: createFanOutCheck(lookups, permissions),
          queue,
          dispatcher,
          acceptance: createAcceptance(clock, random),
          audit,
          queries,
          streamInFlightMax: config.streamInFlightMax,
        }),
      )
      server.add(
        DeviceServiceDefinition,
        createDevicesService({ lookups, registry, permissions, callDeadlineMs: config.lookupDeadlineMs }),
      )
      server.add(
        OperationsServiceDefinition,
        guardOperations(
          createOperationsService({
            registry,
            lookups,
            links,
            edgeDrains: createEdgeDrainCalls({
              directory,
              lister: registry.client(RegistryServiceDefinition),
              transport,
              ...parts,
            }),
            deadLetters: createDeadLetterCalls({
              ...parts,
              permissions,
              queue,
              replayRatePerSecond: config.deadLetterReplayRate,
            }),
            log,
          }),
          permissions,
          audit,
        ),
      )
      server.add(UplinkServiceDefinition, createUplinkService({ links, directory, lateAnswers, flushes, metrics }))
    },
  })
  closers.add('grpc server', () => server.drain(config.drainGraceMs))

  const reportHealth = () => {
    server.setServing('', directory.known)
    server.setServing(queueHealthName, queue.state === 'ready')
  }
  reportHealth()
  const readiness = clock.every(readinessPeriodMs, reportHealth)
  closers.add('readiness', () => readiness.cancel())

  await queue.consume(dispatcher)
  // Before the server stops taking calls: what is in flight finishes while its answers still find the way.
  closers.add('dispatch', () => queue.stopConsuming(() => dispatcher.settle(config.ackTimeoutMs)))

  if (config.metricsAddress !== undefined) {
    const metricsServer = await serveMetrics(metrics, config.metricsAddress)
    closers.add('metrics server', () => metricsServer.close())
    log.info('metrics served', { address: metricsServer.address })
  }
  log.info('router ready', { address: server.address })
  return { address: server.address }
}
