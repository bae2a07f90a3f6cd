import type { DeviceSessions, RegistryServiceClient, SessionKey } from '../gen/push/internal/v1/registry.ts'
import { EdgeLeaseState } from '../gen/push/internal/v1/registry.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import type { DeviceSession } from './device-session.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import type { Registration } from './registration.ts'
import { isLower } from './session.ts'
import type { SessionTable } from './session-table.ts'

/** Holds the sessions of this edge against the registry: while its lease had lapsed, others may have taken its devices for gone. */
export interface Recheck {
  /** Looks all sessions up, at a bounded rate. Safe to repeat: those that wait already stay where they are. */
  start(): void
  /** Devices that are still to be looked up. */
  readonly size: number
  close(): Promise<void>
}

const batchMax = 250
const callTimeoutMs = 5_000
const retryBaseMs = 500
const retryCapMs = 15_000

export function createRecheck(options: {
  readonly registry: Pick<RegistryServiceClient<CallBounds>, 'lookup'>
  readonly registration: Pick<Registration, 'register'>
  readonly edgeId: string
  readonly sessions: SessionTable
  readonly unregister: (key: SessionKey) => void
  /** Devices a second. */
  readonly ratePerSecond: number
  /** After so long what was in doubt is looked up again. */
  readonly leaseTtlMs: number
  /** How long one attempt to register again may take. */
  readonly registerTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
}): Recheck {
  const { registry, registration, edgeId, sessions, ratePerSecond, leaseTtlMs, clock, log, metrics } = options
  const batchSize = Math.max(1, Math.min(batchMax, ratePerSecond))
  const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random: options.random })
  const stopped = new AbortController()
  /** When each device is to be looked up, on the monotonic clock; in the order of asking. */
  const dueAt = new Map<string, number>()
  const registering = new Set<Promise<void>>()
  let working: Promise<void> | undefined
  let wake = new AbortController()

  const show = () => metrics.recheckQueued.set(dueAt.size)

  const again = (deviceId: string, afterMs: number) => {
    if (!dueAt.has(deviceId)) dueAt.set(deviceId, clock.monotonic() + afterMs)
  }

  /** Its row has gone. It stays open while nothing is known of another session in its place. */
  const registerAgain = async (session: DeviceSession): Promise<void> => {
    const { deviceId, sessionId, accountId, protocol, connectedTime, rowTtlMs } = session
    session.handle({ type: 'registering again' })
    const candidate = {
      deviceId,
      sessionId,
      accountId,
      protocol,
      connectedTime,
      rowTtlMs,
      registerBy: clock.monotonic() + options.registerTimeoutMs,
      lastEpoch: session.order.epoch,
      get closed() {
        return session.closed
      },
    }
    const result = await registration.register(candidate)
    session.handle(result)
    if (result.type === 'registration failed' && !session.closed) {
      again(deviceId, leaseTtlMs)
      run()
    }
  }

  const judge = (session: DeviceSession, { routes, more, inboxUntil }: DeviceSessions): string => {
    const { deviceId, sessionId, order } = session
    if (inboxUntil > 0) session.mail()
    let own = false
    let newerOf: EdgeLeaseState | undefined
    let newer = order
    for (const { row, edgeState } of routes) {
      if (row === undefined) continue
      if (row.sessionId === sessionId) own = true
      else if (row.edgeId === edgeId && sessions.find(deviceId, row.sessionId) === undefined)
        continue // a ghost
      else if (isLower(newer, row)) {
        newer = { epoch: row.epoch, sessionId: row.sessionId }
        newerOf = edgeState
      }
    }
    if (newerOf === EdgeLeaseState.LIVE) {
      session.handle({ type: 'replaced', replacer: newer })
      return 'replaced'
    }
    if (newerOf !== undefined) {
      // Its edge may be dead, and then this session is the one that the device has.
      again(deviceId, leaseTtlMs)
      return 'doubtful'
    }
    if (own) return 'current'
    if (more) {
      again(deviceId, leaseTtlMs)
      return 'doubtful'
    }
    const under = registerAgain(session)
      .catch((cause: unknown) => log.error('a session could not be registered again by a defect', { cause }))
      .finally(() => registering.delete(under))
    registering.add(under)
    return 'missing'
  }

  const removeGhosts = ({ deviceId, routes }: DeviceSessions) => {
    for (const { row } of routes) {
      if (row === undefined || row.edgeId !== edgeId || sessions.find(deviceId, row.sessionId) !== undefined) continue
      metrics.ghosts.inc()
      options.unregister({ deviceId, sessionId: row.sessionId, epoch: row.epoch })
    }
  }

  /** Looks a batch up and judges the sessions that were open before; those that come meanwhile have read the registry themselves. */
  const look = async (deviceIds: string[]): Promise<void> => {
    const before = deviceIds.flatMap((deviceId) => [...sessions.ofDevice(deviceId)].filter(isSettled))
    const { devices } = await registry.lookup({ deviceIds, allRows: true }, { deadlineMs: callTimeoutMs, signal: stopped.signal })
    const found = new Map(devices.map((device) => [device.deviceId, device]))
    for (const device of devices) if (device.error === undefined) removeGhosts(device)
    for (const session of before) {
      if (!isSettled(session)) continue
      const device = found.get(session.deviceId)
      if (device === undefined || device.error !== undefined) {
        metrics.recheckFailures.inc()
        again(session.deviceId, retryBaseMs + backoff.next())
      } else metrics.rechecks.inc({ found: judge(session, device) })
    }
  }

  const work = async (): Promise<void> => {
    while (dueAt.size > 0 && !stopped.signal.aborted) {
      const awake = wake.signal
      const nowMs = clock.monotonic()
      const due: string[] = []
      for (const [deviceId, at] of dueAt) {
        if (at <= nowMs) due.push(deviceId)
        if (due.length >= batchSize) break
      }
      for (const deviceId of due) dueAt.delete(deviceId)
      const batch = due.filter((deviceId) => !sessions.ofDevice(deviceId).next().done)
      let waitMs = (batch.length / ratePerSecond) * 1000
      if (batch.length > 0) {
        try {
          await look(batch)
          backoff.reset()
        } catch (cause) {
          if (stopped.signal.aborted) break
          metrics.recheckFailures.inc()
          log.warn('sessions could not be looked up after a lapse; trying again', { cause: callErrorOf(cause).message })
          for (const deviceId of batch) again(deviceId, 0)
          waitMs = retryBaseMs + backoff.next()
        }
      }
      show()
      if (waitMs > 0) await clock.sleep(waitMs, stopped.signal).catch(() => {})
      let nextAt = Number.POSITIVE_INFINITY
      for (const at of dueAt.values()) nextAt = Math.min(nextAt, at)
      const restMs = nextAt - clock.monotonic()
      if (dueAt.size > 0 && restMs > 0) await clock.sleep(restMs, AbortSignal.any([stopped.signal, awake])).catch(() => {})
    }
    working = undefined
    show()
  }

  const run = () => {
    wake.abort()
    wake = new AbortController()
    // Not at once: it may come to its end before this assignment does.
    if (!stopped.signal.aborted) working ??= Promise.resolve().then(work)
  }

  return {
    start() {
      let count = 0
      for (const session of sessions.all()) {
        if (!isSettled(session)) continue
        dueAt.set(session.deviceId, clock.monotonic())
        count++
      }
      show()
      log.info('sessions are looked up after a lapse', { session_count: count })
      run()
    },
    get size() {
      return dueAt.size
    },
    async close() {
      stopped.abort()
      while (working !== undefined) await working
      dueAt.clear()
      while (registering.size > 0) await Promise.all(registering)
    },
  }
}

/** Registered, and not being closed. */
function isSettled(session: DeviceSession): boolean {
  return session.writes && session.accepts
}
