import { vi } from 'vitest'
import type { Delivery } from '../../gen/push/internal/v1/edge.ts'
import { broken } from './broken-rules.ts'

// Production code has no switches. Where a rule that keeps messages safe cannot be broken at a port, a broken twin of the part that keeps it takes its
// place here while a test says so, and never else. To be imported before anything of production.

vi.mock('../../registry/sessions.ts', async (original) => {
  const actual = await original<typeof import('../../registry/sessions.ts')>()
  const { readingOnce } = await import('../session-rules/breakages.ts')
  return {
    ...actual,
    createSessions(options: Parameters<typeof actual.createSessions>[0]) {
      const sessions = actual.createSessions(options)
      return {
        ...sessions,
        register: (...call: Parameters<typeof sessions.register>) =>
          broken.rule === 'second registry read'
            ? actual.createSessions({ ...options, store: readingOnce(options.store) }).register(...call)
            : sessions.register(...call),
      }
    },
  }
})

vi.mock('../../registry/edge-liveness.ts', async (original) => {
  const actual = await original<typeof import('../../registry/edge-liveness.ts')>()
  class EdgeLiveness extends actual.EdgeLiveness {
    constructor(bounds: ConstructorParameters<typeof actual.EdgeLiveness>[0]) {
      super(broken.rule === 'lease suspicion' ? { leasePeriodMs: 1, readGapMaxMs: Number.POSITIVE_INFINITY } : bounds)
    }
    override readFailed(): void {
      if (broken.rule !== 'lease suspicion') super.readFailed()
    }
  }
  return { ...actual, EdgeLiveness }
})

vi.mock('../../router/dispatch/offline-path.ts', async (original) => {
  const actual = await original<typeof import('../../router/dispatch/offline-path.ts')>()
  return {
    ...actual,
    createOfflinePath(options: Parameters<typeof actual.createOfflinePath>[0]) {
      const find: typeof options.lookups.find = async (deviceId, how) =>
        broken.rule === 'read after store' ? { routes: [], more: false, remembered: false } : options.lookups.find(deviceId, how)
      return actual.createOfflinePath({ ...options, lookups: { ...options.lookups, find } })
    },
  }
})

vi.mock('../../router/dispatch/partition-progress.ts', async (original) => {
  const actual = await original<typeof import('../../router/dispatch/partition-progress.ts')>()
  class PartitionProgress extends actual.PartitionProgress {
    override finish(offset: bigint): bigint | undefined {
      const below = super.finish(offset)
      return broken.rule === 'contiguous commit' ? offset + 1n : below
    }
  }
  return { ...actual, PartitionProgress }
})

vi.mock('../../router/dispatch/hold.ts', async (original) => {
  const actual = await original<typeof import('../../router/dispatch/hold.ts')>()
  class Hold extends actual.Hold {
    constructor(options: ConstructorParameters<typeof actual.Hold>[0]) {
      super(broken.rule === 'hold clock' ? { ...options, stops: false } : options)
    }
    override get failing(): boolean {
      return broken.rule !== 'hold clock' && super.failing
    }
  }
  return { ...actual, Hold }
})

vi.mock('../../edge/pending.ts', async (original) => {
  const actual = await original<typeof import('../../edge/pending.ts')>()
  class Pending extends actual.Pending {
    override find(messageId: string) {
      return broken.delivering ? undefined : super.find(messageId)
    }
  }
  return { ...actual, Pending }
})

vi.mock('../../edge/device-session.ts', async (original) => {
  const actual = await original<typeof import('../../edge/device-session.ts')>()
  class DeviceSession extends actual.DeviceSession {
    override deliver(delivery: Delivery, waiter: Parameters<typeof actual.DeviceSession.prototype.deliver>[1]): void {
      broken.delivering = broken.rule === 'pending join'
      super.deliver(broken.rule === 'account check' ? { ...delivery, accountId: '' } : delivery, waiter)
      broken.delivering = false
    }
  }
  return { ...actual, DeviceSession }
})
