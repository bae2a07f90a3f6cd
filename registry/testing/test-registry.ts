import {
  EdgeLeaseState,
  type RegisterRequest,
  type RegisterResult,
  type SessionRow,
} from '../../gen/push/internal/v1/registry.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics, type Metrics } from '../../service-kit/metrics.ts'
import { createServiceLimits } from '../service-limits.ts'
import type { SessionStore } from '../session-store.ts'
import { createSessions, type Sessions } from '../sessions.ts'

/** A session as tests speak of it: short ids are filled up to their full length. */
export interface TestSession {
  readonly deviceId: string
  readonly sessionId: string
  readonly edgeId?: string
  readonly accountId?: string
  readonly lastEpoch?: number
  readonly signal?: AbortSignal
}

/** The sessions of one registry, with the calls that tests make. */
export interface TestRegistry {
  readonly sessions: Sessions
  register(session: TestSession): Promise<NonNullable<RegisterResult['result']>>
  unregister(key: { deviceId: string; sessionId: string; epoch: number }): Promise<void>
  /** The rows of a device as `epoch/session`, newest first, the session's id cut to what the test called it. */
  lookup(deviceId: string): Promise<SessionRow[]>
}

/** Fills a session's id up to 22 characters. The order of short ids stays. */
export const fullId = (sessionId: string): string => sessionId.padEnd(22, '-')

/** A registry on a store, with its own clock. */
export function testRegistry(store: SessionStore, clock: Clock, metrics: Metrics = createMetrics()): TestRegistry {
  const limits = createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics })
  const sessions = createSessions({ store, edgeStateOf: () => EdgeLeaseState.LIVE, limits, clock, log: silentLog, metrics })
  const never = new AbortController().signal
  return {
    sessions,
    async register({ signal = never, ...session }) {
      const { results } = await sessions.register(registerRequest([session]), { signal })
      const result = results[0]?.result
      if (result === undefined) throw new Error('the registry gave no result')
      return result
    },
    unregister: ({ deviceId, sessionId, epoch }) =>
      sessions.unregister({ sessions: [{ deviceId, sessionId: fullId(sessionId), epoch }] }, { signal: never }),
    async lookup(deviceId) {
      const { devices } = await sessions.lookup({ deviceIds: [deviceId], allRows: true }, { signal: never })
      return (devices[0]?.routes ?? []).flatMap(({ row }) => (row === undefined ? [] : [row]))
    },
  }
}

/** The request for sessions of one edge. */
export function registerRequest(sessions: readonly Omit<TestSession, 'signal'>[]): RegisterRequest {
  const edgeId = sessions[0]?.edgeId ?? 'edge-a-12345678'
  return {
    edgeId,
    edgeAddress: '127.0.0.1:7402',
    sessions: sessions.map(({ deviceId, sessionId, accountId = '', lastEpoch = 0 }) => ({
      deviceId,
      sessionId: fullId(sessionId),
      accountId,
      protocol: 'push.v1.json',
      connectedTime: 1_800_000_000_000_000,
      rowTtl: { seconds: 3600, nanos: 0 },
      lastEpoch,
    })),
  }
}

/** The registered answer, or a failure that shows what came instead. */
export function registered(result: NonNullable<RegisterResult['result']>) {
  if (result.$case !== 'registered') throw new Error(`expected registered, got ${JSON.stringify(result)}`)
  return result.value
}
