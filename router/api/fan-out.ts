import { PushError } from '../../service-kit/errors.ts'
import type { Lookups } from '../dispatch/lookups.ts'
import type { CheckedMessage } from './message-check.ts'
import type { Permissions } from './permissions.ts'

/**
 * Rejects with TOO_MANY_TARGETS where a message to an account would reach more devices than the policy lets its publisher reach at once, and with
 * REGISTRY_UNAVAILABLE where that cannot be found out. Gives nothing to wait for where there is no such bound, so that messages on one stream
 * keep their order; with one, messages to an account may overtake each other on a stream, and are taken only while the registry answers. A
 * device that logs in later, before the message is dispatched, gets it all the same.
 */
export type FanOutCheck = (principal: string, message: CheckedMessage) => Promise<void> | undefined

/** Creates the check. */
export function createFanOutCheck(
  lookups: Pick<Lookups, 'accountDevices'>,
  permissions: Pick<Permissions, 'fanOutMax'>,
): FanOutCheck {
  async function check(principal: string, accountId: string, most: number): Promise<void> {
    const { deviceIds } = await lookups.accountDevices(accountId, '', most + 1)
    if (deviceIds.length <= most) return
    const words = `account ${accountId} has more than the ${most} devices that ${principal} may reach at once`
    throw new PushError('TOO_MANY_TARGETS', words, { principal, account_id: accountId, fan_out_max: String(most) })
  }
  return (principal, { target }) => {
    const most = target.$case === 'accountId' ? permissions.fanOutMax(principal) : undefined
    return most === undefined ? undefined : check(principal, target.value, most)
  }
}
