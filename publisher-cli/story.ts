import type { Timestamp } from '../gen/google/protobuf/timestamp.ts'
import { MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { DeviceOutcome } from '../gen/push/v1/publish.ts'
import { isoTime, nameOf, printable, table } from './output.ts'

interface Moment {
  readonly time: Timestamp
  readonly words: string
}

/**
 * What happened to a message on its way to one device: a line for each hop and each recorded state, by their times, with the milliseconds since
 * the line before. Each hop is told by the clock of the part that it passed, so a step may take less than nothing.
 */
export function storyLines(device: DeviceOutcome): string[] {
  const moments = [...hopMoments(device), ...stateMoments(device)].sort((one, other) => microsBetween(other.time, one.time))
  return table(
    ['TIME', 'MS', 'STEP'],
    moments.map(({ time, words }, index) => {
      const before = moments[index - 1]
      const ms = before ? `+${(microsBetween(before.time, time) / 1_000).toFixed(1)}` : ''
      return [isoTime(time) ?? '', ms, words]
    }),
  )
}

function hopMoments({ outcome }: DeviceOutcome): Moment[] {
  const hops = outcome?.hops
  const edge = outcome?.edgeId ? ` ${printable(outcome.edgeId)}` : ''
  const session = outcome?.sessionId ? ` (session ${printable(outcome.sessionId)})` : ''
  const passed: [Timestamp | undefined, string][] = [
    [hops?.accepted, 'accepted'],
    [hops?.consumed, 'consumed from the queue'],
    [hops?.lookedUp, 'looked up'],
    [hops?.sentToEdge, `sent to edge${edge}`],
    [hops?.written, `written to the device${session}`],
    [hops?.answered, 'answered by the device'],
  ]
  return passed.flatMap(([time, words]) => (time ? [{ time, words }] : []))
}

/** What was recorded, as far as no hop says the same, and what the clock has made of it since. */
function stateMoments({ outcome, time, recorded }: DeviceOutcome): Moment[] {
  const hopOf: Partial<Record<MessageState, Timestamp | undefined>> = {
    [MessageState.ACCEPTED]: outcome?.hops?.accepted,
    [MessageState.WRITTEN]: outcome?.hops?.written,
  }
  const isRecorded = recorded.some(({ state }) => state === outcome?.state)
  const all = outcome && !isRecorded ? [...recorded, { state: outcome.state, reason: outcome.reason, time }] : recorded
  return all.flatMap((one) => (one.time && !hopOf[one.state] ? [momentOf(one.time, one)] : []))
}

function momentOf(time: Timestamp, { state, reason }: { state: MessageState; reason: StateReason }): Moment {
  const words = nameOf(MessageState, state).toLowerCase().replace('_', ' ')
  return { time, words: reason === StateReason.UNSPECIFIED ? words : `${words} (${nameOf(StateReason, reason)})` }
}

function microsBetween(from: Timestamp, until: Timestamp): number {
  return (until.seconds - from.seconds) * 1_000_000 + (until.nanos - from.nanos) / 1_000
}
