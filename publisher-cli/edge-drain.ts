import { type EdgeDrain, EdgeDrainState, OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import type { Service } from './connection.ts'
import type { CliContext } from './context.ts'
import { bar, isoTime, nameOf, printable } from './output.ts'

/** For each call. */
export const drainCallTimeoutMs = 10_000
const lookMs = 500

/** One drain in a sentence. */
export function drainSentence(drain: EdgeDrain): string {
  const { state, connectionCount, startConnectionCount, toldCount, ratePerSecond } = drain
  const rate = ratePerSecond > 0 ? `, ${Number(ratePerSecond.toPrecision(3))} a second` : ''
  const left = `${connectionCount} of ${startConnectionCount} devices left, ${toldCount} of them asked to leave${rate}`
  const words: Partial<Record<EdgeDrainState, string>> = {
    [EdgeDrainState.SERVING]: `does not drain; ${connectionCount} devices`,
    [EdgeDrainState.NOT_READY]: `not ready, waits for its balancer to notice; ${connectionCount} devices`,
    [EdgeDrainState.EVICTING]: `evicting: ${left}`,
    [EdgeDrainState.FORCING]: `forcing: ${left}`,
    [EdgeDrainState.GONE]: 'gone: it can be stopped',
  }
  return printable(`${drain.edgeId}: ${words[state] ?? nameOf(EdgeDrainState, state)}`)
}

/** The share of devices that have gone. */
export function drainedShare({ state, connectionCount, startConnectionCount }: EdgeDrain): number {
  if (state === EdgeDrainState.GONE) return 1
  return startConnectionCount === 0 ? 0 : 1 - connectionCount / startConnectionCount
}

/** For `--json`. */
export function drainFields(drain: EdgeDrain): object {
  return {
    edge_id: drain.edgeId,
    state: nameOf(EdgeDrainState, drain.state),
    start_time: isoTime(drain.startTime),
    connection_count: drain.connectionCount,
    start_connection_count: drain.startConnectionCount,
    told_count: drain.toldCount,
    rate_per_second: drain.ratePerSecond,
    stopping: drain.stopping,
  }
}

/** Follows a drain, showing how far it is, until it is over or has been taken back. */
export async function followDrain(service: Service, drain: EdgeDrain, context: CliContext): Promise<EdgeDrain> {
  const { output, clock, interrupted } = context
  const operations = service.client(OperationsServiceDefinition)
  let last = drain
  while (last.state !== EdgeDrainState.GONE && last.state !== EdgeDrainState.SERVING) {
    output.progress(`${bar(drainedShare(last))} ${drainSentence(last)}`)
    await clock.sleep(lookMs, interrupted)
    const call = { deadlineMs: drainCallTimeoutMs, signal: interrupted }
    const next = (await operations.getEdgeDrain({ edgeId: drain.edgeId }, call)).drain ?? last
    if (next.state !== last.state) output.talk(drainSentence(next))
    last = next
  }
  return last
}
