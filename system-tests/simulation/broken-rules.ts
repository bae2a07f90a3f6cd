import type { RegistryStores } from '../../registry/stores.ts'
import type { FaultName } from './faults.ts'

/** Which rule is broken at present; undefined: none. */
export const broken: { rule: RuleName | undefined; delivering: boolean } = { rule: undefined, delivering: false }

export interface BrokenRule {
  /** What goes wrong in each of its schedules: that for which the rule is there. */
  readonly faults: readonly FaultName[]
  readonly stores?: (stores: RegistryStores) => RegistryStores
}

/** The rules that the simulation has to notice the absence of, one at a time. */
export const brokenRules = {
  'second registry read': { faults: ['a device flaps', 'a device flaps', 'a device flaps', 'steps at the store fail'] },
  'read after store': { faults: ['a device flaps', 'a device flaps', 'steps at the store fail'] },
  'contiguous commit': { faults: ['a line is dead', 'a line is dead', 'a router dies', 'a router dies'] },
  'entry-wise removal': {
    faults: ['a line is dead', 'a device is restarted', 'a device is restarted', 'a device flaps'],
    // All that waits goes with the first entry that is removed.
    stores: (stores) => ({
      ...stores,
      inbox: {
        ...stores.inbox,
        async delete(key) {
          await stores.inbox.delete(key)
          const { rows } = await stores.inbox.list(key.deviceId)
          for (const { messageId, acceptTime } of rows)
            await stores.inbox.delete({ deviceId: key.deviceId, messageId, acceptTime })
        },
      },
    }),
  },
  'pending join': { faults: ['connections break', 'a device does not answer', 'a router dies'] },
  'account check': { faults: ['a device changes its account'] },
  'lease suspicion': {
    faults: ['the store stalls', 'the store stalls', 'an edge and a router are cut off', 'an edge and a router are cut off'],
  },
  'hold clock': { faults: ['the store stalls', 'a registry dies'] },
} as const satisfies Readonly<Record<string, BrokenRule>>

export type RuleName = keyof typeof brokenRules
