import { EdgeServiceDefinition } from '../gen/push/internal/v1/edge.ts'
import type { SessionRow } from '../gen/push/internal/v1/registry.ts'
import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Closers } from '../service-kit/closers.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { serveGrpc } from '../service-kit/grpc-server.ts'
import { fixedConfig, type LiveConfig } from '../service-kit/live-config.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { serveMetrics } from '../service-kit/metrics-server.ts'
import type { Random } from '../service-kit/random.ts'
import type { Reloads } from '../service-kit/reloads.ts'
import { openServiceSecurity } from '../service-kit/service-security.ts'
import { portLimits, showLimits } from './admission/port-limits.ts'
import { openIdentity } from './auth/open-identity.ts'
import { AwaitedResults } from './awaited-results.ts'
import { closeKinds } from './close-codes.ts'
import { type EdgeConfig, originsOf } from './config.ts'
import { createEdgeService } from './deliver.ts'
import { serveDevices } from './device-server.ts'
import { openDeviceTls } from './device-tls.ts'
import { createDrain, type Drain } from './drain.ts'
import { slotLeadMs } from './drain-machine.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { FinalAnswers } from './final-answers.ts'
import { createFlushCalls } from './flush-calls.ts'
import { createLateAnswers } from './late-answers.ts'
import { keepLease, mintEdgeId } from './lease.ts'
import { createLiveness } from './liveness.ts'
import { pendingMax } from './pending.ts'
import { createRecheck } from './recheck.ts'
import { createRegistration } from './registration.ts'
import { createReplacedReports } from './replaced.ts'
import { createRetryAfter } from './retry-after.ts'
import { edgeRoles } from './roles.ts'
import type { SessionOrder } from './session.ts'
import { createSessionFactory } from './session-factory.ts'
import type { SessionHost, SessionSettings } from './session-host.ts'
import { SessionTable } from './session-table.ts'
import { isAwaited, showCredentialOf, takeFrameOf } from './take-answer.ts'
import { createTimerWheel } from './timer-wheel.ts'
import { createUnregistration } from './unregistration.ts'

/** What an edge is started with. Everything it opens is closed by the closers. */
export interface EdgeContext {
  readonly config: EdgeConfig
  /** The settings that may change meanwhile; `config` for ever when left out. */
  readonly settings?: LiveConfig<EdgeConfig>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly closers: Closers
  /** Has the certificate read again. */
  readonly reloads?: Reloads
}

/** An edge that serves. */
export interface RunningEdge {
  readonly edgeId: string
  /** Where routers reach it. */
  readonly address: string
  /** Where devices connect. */
  readonly deviceAddress: string
}

/** Largest frame that a device may send. */
export const clientFrameLimitBytes = 64 * 1024
const wheelTickMs = 100
const callTimeoutMs = 2_000
const invalidFramesMax = 10
const unreadRepliesMax = 100
const finishMs = 5_000
const sweepMs = 1_000
/** How long closing sockets are waited for in a drain: longer than a close handshake may take. */
const closingMs = 6_000
/** Calls that may still end while the edge stops: reports, then removals. */
const lastCallsMs = 5_000
/** A frame of 64 deliveries and 256 KiB, and room for what is counted differently. */
const deliverFrameLimitBytes = 1024 * 1024

/** How long stopping may take with this config. */
export function stopGraceMs(config: EdgeConfig): number {
  return config.drainNoticeMs + config.drainMs + 2 * config.drainGraceMs + closingMs + 3 * lastCallsMs + 10_000
}

/** Starts an edge and waits until devices and routers can reach it. */
export async function startEdge(context: EdgeContext): Promise<RunningEdge> {
  const { config, settings = fixedConfig(context.config), clock, random, log, metrics, closers } = context
  const edgeId = mintEdgeId(config.name, random)
  const edgeMetrics = createEdgeMetrics(metrics)
  if (config.metricsAddress !== undefined) {
    const metricsServer = await serveMetrics(metrics, config.metricsAddress)
    closers.add('metrics server', () => metricsServer.close())
    log.info('metrics served', { address: metricsServer.address })
  }

  const { tls, transport } = openServiceSecurity({ ...context, prefix: 'EDGE_', role: 'edge', edgeName: config.name })
  const registries = connectGrpc({
    addresses: config.registryAddresses,
    transport: transport.to('registry'),
    log,
    clock,
    random,
    metrics,
  })
  closers.add('registry connection', () => registries.close())
  const routers = connectGrpc({
    addresses: config.routerAddresses,
    transport: transport.to('router'),
    log,
    clock,
    random,
    metrics,
  })
  closers.add('router connection', () => routers.close())
  const registry = registries.client(RegistryServiceDefinition)
  const shared = { clock, random, log, metrics: edgeMetrics }
  const unregistration = createUnregistration({ registry, ...shared })
  closers.add('removal of rows', () => unregistration.close(lastCallsMs))
  const uplink = routers.client(UplinkServiceDefinition)
  const reports = createReplacedReports({ uplink, edgeId, ...shared })
  closers.add('reports of replaced sessions', () => reports.close(lastCallsMs))
  const lateAnswers = createLateAnswers({ uplink, edgeId, bytesMax: config.lateAnswersBytes, ...shared })
  closers.add('reports of late answers', () => lateAnswers.close(lastCallsMs))

  const wheel = createTimerWheel({ clock, tickMs: wheelTickMs })
  closers.add('timer wheel', () => wheel.stop())
  const liveness = createLiveness(clock, edgeMetrics)
  closers.add('liveness', () => liveness.stop())

  const identity = await openIdentity({ config, ...shared })
  closers.add('identity', () => identity.close())
  const sessions = new SessionTable()
  const host: SessionHost = {
    clock,
    random,
    settings: sessionSettings(config, settings),
    metrics: edgeMetrics,
    wheel,
    liveness,
    sessions,
    // A certificate cannot be replaced while its connection lasts.
    identity: config.auth === 'client-certificate' ? undefined : identity,
    finalAnswers: new FinalAnswers(clock),
    awaitedResults: new AwaitedResults(edgeMetrics),
    outboxBudget: { usedBytes: 0, limitBytes: config.outboxTotalBytes },
    unregister: (key) => unregistration.add(key),
    tellReplaced,
    reportDuplicate({ deviceId, sessionId, accountId }, takeovers) {
      edgeMetrics.duplicateIdentities.inc()
      log.warn('two devices seem to use one identity', {
        device_id: deviceId,
        session_id: sessionId,
        account_id: accountId || undefined,
        takeovers,
      })
    },
    flush: (flusher) => flushes.ask(flusher),
    reportLate: (answer) => lateAnswers.add(answer),
    failed(session, cause) {
      log.error('a session ended by a defect', { device_id: session.deviceId, session_id: session.sessionId, cause })
      session.handle({ type: 'end', kind: closeKinds.internalError })
    },
    ended(session) {
      sessions.remove(session)
      drain.ended(session)
    },
  }

  /** A replaced session of this very edge is closed by the same rule as by a router's word. */
  function tellReplaced(rows: readonly SessionRow[], replacer: SessionOrder): void {
    for (const row of rows) {
      if (row.edgeId !== edgeId) reports.report(row, replacer)
      else {
        const replaced = sessions.find(row.deviceId, row.sessionId)
        if (replaced !== undefined) replaced.handle({ type: 'replaced', replacer })
        else unregistration.add({ deviceId: row.deviceId, sessionId: row.sessionId, epoch: row.epoch })
      }
    }
  }

  const gauges = clock.every(1_000, () => {
    edgeMetrics.outboxBytes.set(host.outboxBudget.usedBytes)
    edgeMetrics.finalAnswers.set(host.finalAnswers.size)
    edgeMetrics.awaitedResults.set(host.awaitedResults.size)
  })
  closers.add('gauges', () => gauges.cancel())

  // Routers may call before devices can.
  const drainReady = Promise.withResolvers<Drain>()
  const grpc = await serveGrpc({
    address: config.listenAddress,
    services: (server) => server.add(EdgeServiceDefinition, createEdgeService({ edgeId, host, drain: drainReady.promise, log })),
    tls,
    roles: edgeRoles,
    maxReceiveBytes: deliverFrameLimitBytes,
    log,
    metrics,
    clock,
  })
  closers.add('grpc server', () => grpc.drain(config.drainGraceMs))
  const edgeAddress = config.advertiseAddress ?? grpc.address
  const flushes = createFlushCalls({ uplink, edgeId, edgeAddress, concurrentMax: config.flushesAtOnce, ...shared })
  closers.add('flushes', () => flushes.close())

  const lease = keepLease({
    registry,
    edgeId,
    name: config.name,
    address: edgeAddress,
    zone: config.zone ?? '',
    get connectionLimit() {
      return settings.current.connectionLimit
    },
    connectionCount: () => sessions.size,
    ttlMs: config.leaseTtlMs,
    onLapsed: () => recheck.start(),
    ...shared,
  })
  closers.add('edge lease', () => lease.stop())
  const registration = createRegistration({
    registry,
    edgeId,
    edgeAddress,
    get ratePerSecond() {
      return settings.current.registerRatePerSecond
    },
    timeoutMs: config.registerTimeoutMs,
    callTimeoutMs,
    ...shared,
  })
  const recheck = createRecheck({
    registry,
    registration,
    edgeId,
    sessions,
    unregister: (key) => unregistration.add(key),
    ratePerSecond: config.recheckRatePerSecond,
    leaseTtlMs: config.leaseTtlMs,
    registerTimeoutMs: config.registerTimeoutMs,
    ...shared,
  })
  closers.add('re-check of sessions', () => recheck.close())
  // So that routers know the edge before they are told of its sessions. A registry that is away keeps nobody from starting.
  await lease.attempted

  let limits = portLimits(settings.current)
  showLimits(settings.current, edgeMetrics)
  const factory = createSessionFactory({ host, registration, log })
  const deviceTls = openDeviceTls({ ...context, config })
  closers.add('certificate of the device port', () => deviceTls?.close())
  const devices = await serveDevices({
    address: config.deviceListenAddress,
    allowedOrigins: originsOf(config),
    identity,
    tls: deviceTls,
    certificates: { devicePrefix: config.certificateDevicePrefix, accountPrefix: config.certificateAccountPrefix },
    limits: () => limits,
    frameLimitBytes: clientFrameLimitBytes,
    gate: { sessionCount: () => sessions.size, backlogged: () => registration.full },
    admit: factory.admit,
    awaits: (deviceId, frame) => isAwaited(host, deviceId, frame),
    takeAnswer: (deviceId, frame) => takeFrameOf(host, deviceId, frame),
    deviceFrames: () => host.settings.deviceFrames,
    showCredential: (deviceId, token) => showCredentialOf(host, deviceId, token),
    retryAfter: createRetryAfter({
      clock,
      random,
      get ratePerSecond() {
        return settings.current.registerRatePerSecond
      },
    }),
    ...shared,
  })
  settings.onChange((changed) => {
    limits = portLimits(changed)
    showLimits(changed, edgeMetrics)
    devices.limitsChanged()
  })
  closers.add('device server', () => devices.close())

  const drain = createDrain({
    sessions,
    bounds: { noticeMs: config.drainNoticeMs, overMs: config.drainMs, graceMs: config.drainGraceMs, closingMs },
    report(draining) {
      devices.setReady(!draining)
      grpc.setServing('', !draining)
      lease.setDraining(draining)
    },
    takeDevices: (taken) => devices.setOpen(taken),
    ...shared,
  })
  closers.add('drain', () => drain.close())
  drainReady.resolve(drain)
  closers.add('sessions', async () => {
    await drain.stop()
    // Also what an operator's drain has left behind, so that its rows are removed as well.
    for (const session of sessions.all()) session.handle({ type: 'end', kind: closeKinds.goingAway })
    await factory.settled()
    await recheck.close()
    await Promise.all([reports.close(lastCallsMs), lateAnswers.close(lastCallsMs), unregistration.close(lastCallsMs)])
  })

  log.info('edge ready', { edge_id: edgeId, address: grpc.address, device_address: devices.address })
  return { edgeId, address: grpc.address, deviceAddress: devices.address }
}

function sessionSettings(config: EdgeConfig, settings: LiveConfig<EdgeConfig>): SessionSettings {
  const { registerTimeoutMs, pingIntervalMs, pongTimeoutMs, lifetimeMs, lifetimeJitterMs, slotMaxMs, slotGraceMs, stuckMs } =
    config
  return {
    registerTimeoutMs,
    pingIntervalMs,
    pongTimeoutMs,
    lifetimeMs,
    lifetimeJitterMs,
    slotMaxMs,
    longestSlotMs: Math.max(slotMaxMs, slotLeadMs),
    slotGraceMs: Math.max(slotGraceMs, config.drainGraceMs),
    finishMs,
    stuckMs,
    sweepMs,
    outboxAgeMs: config.outboxAgeMs,
    deliveryRate:
      config.deliveryRatePerSecond === 0 ? undefined : { perSecond: config.deliveryRatePerSecond, burst: config.deliveryBurst },
    outbox: { bytes: config.outboxBytes, count: config.outboxCount },
    messageFrameLimitBytes: config.messageFrameLimitBytes,
    clientFrameLimitBytes,
    pendingMax,
    invalidFramesMax,
    credentialRefreshMinMs: config.credentialRefreshMinMs,
    unreadRepliesMax,
    get takeoversMax() {
      return settings.current.takeoversMax
    },
    get deviceFrames() {
      const { deviceFramesPerSecond, deviceFrameBurst } = settings.current
      return { ratePerSecond: deviceFramesPerSecond, burst: deviceFrameBurst }
    },
  }
}
