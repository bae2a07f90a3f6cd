import type {
  DeviceSessions,
  EdgeLeaseState,
  LookupAccountRequest,
  LookupAccountResponse,
  LookupRequest,
  LookupResponse,
  RegisterRequest,
  RegisterResponse,
  RegisterResult,
  SessionKey,
  SessionRegistration,
  UnregisterRequest,
} from '../gen/push/internal/v1/registry.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { msFromDuration } from '../service-kit/time.ts'
import { allOf, type CallScope, createItemErrors, eachOf } from './batches.ts'
import { checkLookup, checkLookupAccount, checkRegister, checkUnregister, pageTokenAfter } from './request-checks.ts'
import type { Work, WorkLimits } from './service-limits.ts'
import { compareRows, dayOf, type SessionRow, type SessionStore, sessionReadLimitMax } from './session-store.ts'

/** Rows that a look-up returns of each device unless all are asked for. */
const lookupRows = 3
/** A session that is replaced when younger than this counts as a takeover, and a takeover is counted for as long. */
const takeoverWindowSeconds = 600
/** Counted no further. */
const takeoversCounted = 200

/** What sessions are made with. */
export interface SessionsOptions {
  readonly store: SessionStore
  readonly edgeStateOf: (edgeId: string) => EdgeLeaseState
  readonly limits: Pick<Record<Work, WorkLimits>, 'registrations' | 'lookups'>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** The calls of `RegistryService` that speak of sessions. */
export interface Sessions {
  register(request: RegisterRequest, scope: CallScope): Promise<RegisterResponse>
  unregister(request: UnregisterRequest, scope: CallScope): Promise<void>
  lookup(request: LookupRequest, scope: CallScope): Promise<LookupResponse>
  lookupAccount(request: LookupAccountRequest, scope: CallScope): Promise<LookupAccountResponse>
}

/**
 * Registers, unregisters and looks up sessions. The rules, each of which answers an interleaving in sessions.suite.ts:
 *
 * - Registering is: read, insert a row above all that is there, read again. A newer row of another session in the second
 *   read means SUPERSEDED. The newer one saw us in its own second read, or we see it in ours: one of two learns of the other.
 * - Registering deletes nothing, not even what it has just written: a second attempt that comes late would delete what
 *   the first was told is valid.
 * - Rows are compared by (epoch, session id): two registries may mint one epoch for two sessions.
 * - Rows are removed by the edge of the session that has ended, each by its own key and stamp.
 */
export function createSessions(options: SessionsOptions): Sessions {
  const { store, edgeStateOf, limits, clock, log, metrics } = options
  const registrations = metrics.counter(
    'push_registry_registrations_total',
    'Sessions that asked to be registered, by what became of it',
    ['result'],
  )
  const removed = metrics.counter('push_registry_removed_rows_total', 'Rows deleted because their session had ended')
  const overfull = metrics.counter(
    'push_registry_overfull_devices_total',
    'Reads of devices with more rows than are read at most',
  )

  const takeovers = metrics.counter('push_registry_takeovers_total', 'Sessions that took the place of one younger than 10 min')
  const takeoversUncounted = metrics.counter(
    'push_registry_takeovers_uncounted_total',
    'Such sessions whose device could not be looked at for it, as the store did not answer',
  )

  const itemErrorOf = createItemErrors({ clock, log, metrics })

  const readWhole = async (deviceId: string) => {
    const partition = await store.read(deviceId, sessionReadLimitMax)
    if (partition.more) overfull.inc()
    return partition
  }

  /**
   * How often of late a session of this device took the place of a young one. Only then is anything written or read for it: a device that stays as
   * long as it may costs nothing. It is noted here because devices that share an identity meet on ever other edges.
   */
  const countTakeover = async (deviceId: string, sessionId: string, scope: CallScope): Promise<number> => {
    const step = <T>(run: () => Promise<T>) => limits.registrations.step(scope.signal, run)
    try {
      await step(() => store.writeTakeover(deviceId, sessionId, takeoverWindowSeconds))
      const count = await step(() => store.countTakeovers(deviceId, takeoversCounted))
      takeovers.inc()
      return count
    } catch (cause) {
      // The session is registered all the same.
      takeoversUncounted.inc()
      log.debug('a takeover was not counted', { device_id: deviceId, cause })
      return 0
    }
  }

  const registerOne = async (
    edge: Pick<SessionRow, 'edgeId' | 'edgeAddress'>,
    session: SessionRegistration,
    scope: CallScope,
  ): Promise<RegisterResult['result']> => {
    const { deviceId, sessionId, accountId, protocol, connectedTime, lastEpoch, rowTtl } = session
    const step = <T>(run: () => Promise<T>) => limits.registrations.step(scope.signal, run)

    // Only a session that had an epoch must see more than the newest row before it writes.
    const before = await step(() => (lastEpoch > 0 ? readWhole(deviceId) : store.read(deviceId, 1)))
    const newest = before.rows[0]
    if (lastEpoch > 0) {
      const own = { epoch: lastEpoch, sessionId }
      const by = before.rows.find((row) => row.sessionId !== sessionId && compareRows(row, own) > 0)
      if (by !== undefined) return { $case: 'superseded', value: { by } }
    }

    // Written before the session's row, so that another session's row of the same account and day shows that it has been.
    const note = () => step(() => store.writeAccountDevice(accountId, deviceId, clock.nowMicros()))
    const noted =
      newest?.accountId === accountId &&
      newest.sessionId !== sessionId &&
      dayOf(newest.connectedTime) === dayOf(clock.nowMicros())
    if (accountId !== '' && !noted) await note()

    const epoch = Math.max(clock.nowMicros(), (newest?.epoch ?? 0) + 1)
    if (!Number.isSafeInteger(epoch))
      throw new Error(`the epoch after ${newest?.epoch} of device ${deviceId} is not a safe number`)
    const row: SessionRow = { deviceId, epoch, sessionId, ...edge, accountId, protocol, connectedTime }
    const ttlSeconds = Math.ceil(msFromDuration(rowTtl ?? { seconds: 0, nanos: 0 }) / 1000)
    await step(() => store.insert(row, ttlSeconds))

    const after = await step(() => readWhole(deviceId))
    // The row that has shown it is gone, and the device may have been forgotten since (account-devices.ts).
    const shown = after.rows.some((other) => other.sessionId === newest?.sessionId && other.epoch === newest.epoch)
    if (accountId !== '' && noted && !shown) await note()
    const others = after.rows.filter((other) => other.sessionId !== sessionId)
    const mine = after.rows.filter((own) => own.sessionId === sessionId)
    const [top] = mine
    const [by] = others
    if (top === undefined || !mine.some((own) => own.epoch === epoch) || (by !== undefined && compareRows(by, top) > 0)) {
      return { $case: 'superseded', value: { by } }
    }
    const taken = by !== undefined && lastEpoch === 0 && top.epoch - by.epoch < takeoverWindowSeconds * 1e6
    const recentTakeovers = taken ? await countTakeover(deviceId, sessionId, scope) : 0
    return {
      $case: 'registered',
      value: {
        epoch: top.epoch,
        replacedSessions: others,
        inboxUntil: after.inboxUntil,
        ...(recentTakeovers > 0 && { recentTakeovers }),
      },
    }
  }

  const unregisterOne = async ({ deviceId, sessionId, epoch }: SessionKey, scope: CallScope): Promise<void> => {
    const step = <T>(run: () => Promise<T>) => limits.registrations.step(scope.signal, run)
    const remove = async (key: { deviceId: string; sessionId: string; epoch: number }) => {
      await step(() => store.delete(key))
      removed.inc()
    }
    if (epoch > 0) return remove({ deviceId, sessionId, epoch })
    const { rows } = await step(() => readWhole(deviceId))
    for (const row of rows) if (row.sessionId === sessionId) await remove(row)
  }

  const lookupOne = async (deviceId: string, allRows: boolean, scope: CallScope): Promise<DeviceSessions> => {
    const read = () => (allRows ? readWhole(deviceId) : store.read(deviceId, lookupRows))
    const { rows, more, inboxUntil } = await limits.lookups.step(scope.signal, read)
    const routes = rows.map((row) => ({ row, edgeState: edgeStateOf(row.edgeId) }))
    return { deviceId, routes, more, inboxUntil, error: undefined }
  }

  return {
    async register(request, scope) {
      checkRegister(request)
      const { edgeId, edgeAddress, sessions } = request
      const results = await limits.registrations.admit(sessions.length, () =>
        eachOf(sessions, async (session): Promise<RegisterResult> => {
          try {
            const result = await registerOne({ edgeId, edgeAddress }, session, scope)
            registrations.inc({ result: result?.$case ?? 'error' })
            return { result }
          } catch (error) {
            const value = itemErrorOf('registrations', error, scope)
            registrations.inc({ result: 'error' })
            return { result: { $case: 'error', value } }
          }
        }),
      )
      return { results, registryTime: clock.nowMicros() }
    },

    async unregister(request, scope) {
      checkUnregister(request)
      const { sessions } = request
      await limits.registrations.admit(sessions.length, () => allOf(sessions, scope, (key) => unregisterOne(key, scope)))
    },

    async lookup(request, scope) {
      checkLookup(request)
      const { deviceIds, allRows } = request
      const devices = await limits.lookups.admit(deviceIds.length, () =>
        eachOf(deviceIds, async (deviceId): Promise<DeviceSessions> => {
          try {
            return await lookupOne(deviceId, allRows, scope)
          } catch (error) {
            const told = itemErrorOf('lookups', error, scope)
            return { deviceId, routes: [], more: false, inboxUntil: 0, error: told }
          }
        }),
      )
      return { devices, registryTime: clock.nowMicros() }
    },

    async lookupAccount(request, scope) {
      const { size, after } = checkLookupAccount(request)
      const read = () => store.readAccountDevices(request.accountId, after, size + 1)
      const found = await limits.lookups.admit(size, () => limits.lookups.step(scope.signal, read))
      const deviceIds = found.slice(0, size)
      const last = deviceIds.at(-1)
      return { deviceIds, nextPageToken: found.length > size && last !== undefined ? pageTokenAfter(last) : '' }
    },
  }
}
