import type { DrainRequest, DrainResponse } from '../gen/push/internal/v1/edge.ts'
import { type EdgeDrain, EdgeDrainState } from '../gen/push/v1/operations.ts'
import { invalidField, PushError } from '../service-kit/errors.ts'
import { msFromDuration, timestampFromMicros } from '../service-kit/time.ts'
import type { Drain } from './drain.ts'
import { type DrainPace, type DrainState, drainRateMax, drainRateMin } from './drain-machine.ts'

/** What an operator may do with a drain. */
export type DrainHandle = Pick<Drain, 'progress' | 'start' | 'abort'>

const dayMs = 24 * 3_600_000

/** Does what an operator asks of the drain and says how far it is. Throws PushError, and does nothing, where the request cannot be understood. */
export function callDrain(drain: DrainHandle, edgeId: string, request: DrainRequest): DrainResponse {
  const { start, abort } = request
  if (start && abort) throw invalidField('abort', 'must not be set together with start')
  const pace = paceOf(request)
  if (start) drain.start(pace)
  if (abort && drain.progress.state !== 'serving' && !drain.abort()) {
    throw new PushError('DRAIN_FINAL', `the drain of edge ${edgeId} is over, or the edge is being stopped`, { edge_id: edgeId })
  }
  return { connectionCount: drain.progress.sessionCount, drain: drainOf(drain, edgeId) }
}

function paceOf({ start, duration, ratePerSecond }: DrainRequest): DrainPace | undefined {
  if (!start && (duration !== undefined || ratePerSecond !== 0)) throw invalidField('start', 'must be set where a pace is given')
  if (ratePerSecond !== 0) {
    if (duration !== undefined) throw invalidField('rate_per_second', 'must not be set together with duration')
    // Written so that NaN is refused as well.
    if (!(ratePerSecond >= drainRateMin && ratePerSecond <= drainRateMax)) {
      throw invalidField('rate_per_second', `must be from ${drainRateMin} to ${drainRateMax}`)
    }
    return { ratePerSecond }
  }
  if (duration === undefined) return undefined
  const overMs = msOf(duration)
  if (overMs < 0 || overMs > dayMs) throw invalidField('duration', 'must be from 0 to 24h')
  return { overMs }
}

function msOf(duration: { seconds: number; nanos: number }): number {
  try {
    return msFromDuration(duration)
  } catch {
    throw invalidField('duration', 'is malformed')
  }
}

const publicStates = {
  serving: EdgeDrainState.SERVING,
  not_ready: EdgeDrainState.NOT_READY,
  evicting: EdgeDrainState.EVICTING,
  forcing: EdgeDrainState.FORCING,
  gone: EdgeDrainState.GONE,
} as const satisfies Record<DrainState, EdgeDrainState>

function drainOf({ progress }: DrainHandle, edgeId: string): EdgeDrain {
  const { state, startTime, sessionCount, startCount, toldCount, ratePerSecond, stopping } = progress
  return {
    edgeId,
    startTime: state === 'serving' ? undefined : timestampFromMicros(startTime),
    connectionCount: sessionCount,
    state: publicStates[state],
    startConnectionCount: startCount,
    toldCount,
    ratePerSecond,
    stopping,
  }
}
