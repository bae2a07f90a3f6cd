import type { ForgetAccountDevicesRequest } from '../gen/push/internal/v1/registry.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { allOf, type CallScope } from './batches.ts'
import { checkForgetAccountDevices } from './request-checks.ts'
import type { Work, WorkLimits } from './service-limits.ts'
import { type SessionStore, sessionReadLimitMax } from './session-store.ts'

/** What forgetting needs. */
export interface AccountDevicesOptions {
  readonly store: SessionStore
  readonly limits: Pick<Record<Work, WorkLimits>, 'lookups'>
  readonly clock: Clock
  readonly metrics: Metrics
}

/** Devices that are listed under accounts to which they no longer belong. */
export interface AccountDevices {
  /** Forgets them, and says how many. Fails when the store does not answer; what has been forgotten then stays so. */
  forget(request: ForgetAccountDevicesRequest, scope: CallScope): Promise<number>
}

/**
 * A note that is younger, in ms, stays: no registry whose clock is this far behind writes one that would be older than a note which is forgotten now.
 */
const youngMs = 60_000

/**
 * Forgets devices of accounts. A note is removed by its own moment, so that a later one stays. That a registration may leave its note out, because a row
 * shows that there is one, asks for the rest: with a row of that account nothing is forgotten, a row that has come meanwhile brings the note back, and
 * a registration looks whether its row was there to the end (sessions.ts). One of them sees the other.
 */
export function createAccountDevices({ store, limits, clock, metrics }: AccountDevicesOptions): AccountDevices {
  const looked = metrics.counter(
    'push_registry_account_devices_total',
    'Devices that were said to have left their account, by what became of it',
    ['result'],
  )

  async function forgetOne(accountId: string, deviceId: string, scope: CallScope): Promise<'forgotten' | 'kept' | 'unknown'> {
    const step = <T>(run: () => Promise<T>) => limits.lookups.step(scope.signal, run)
    const belongs = async () => {
      const { rows, more } = await step(() => store.read(deviceId, sessionReadLimitMax))
      return more || rows.some((row) => row.accountId === accountId)
    }
    const noted = await step(() => store.readAccountDevice(accountId, deviceId))
    if (noted === undefined) return 'unknown'
    if (noted > clock.nowMicros() - youngMs * 1000 || (await belongs())) return 'kept'
    await step(() => store.deleteAccountDevice(accountId, deviceId, noted))
    // When that cannot be read, it counts as having come back.
    if (!(await belongs().catch(() => true))) return 'forgotten'
    await step(() => store.writeAccountDevice(accountId, deviceId, clock.nowMicros()))
    return 'kept'
  }

  return {
    async forget(request, scope) {
      checkForgetAccountDevices(request)
      const { accountDevices } = request
      let forgottenCount = 0
      const one = async ({ accountId, deviceId }: (typeof accountDevices)[number]) => {
        const result = await forgetOne(accountId, deviceId, scope)
        looked.inc({ result })
        if (result === 'forgotten') forgottenCount++
      }
      await limits.lookups.admit(accountDevices.length, () => allOf(accountDevices, scope, one))
      return forgottenCount
    },
  }
}
