import { type HopTimes, type MessageOutcome, MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { DeviceOutcome } from '../gen/push/v1/publish.ts'
import { isoTime, nameOf } from './output.ts'

/** A message's outcome at one device as a JSON object. */
export function deviceFields(device: DeviceOutcome): object {
  return {
    device_id: device.deviceId || undefined,
    ...outcomeFields(device.outcome),
    final: device.final,
    time: isoTime(device.time),
    result: device.result.length > 0 ? resultValue(device.result) : undefined,
    recorded: device.recorded.map(({ state, reason, time }) => ({
      state: nameOf(MessageState, state),
      reason: reasonName(reason),
      time: isoTime(time),
    })),
  }
}

/** State, reason and hops of an outcome as fields of a JSON object. */
export function outcomeFields(outcome: MessageOutcome | undefined): object {
  return {
    state: outcome && nameOf(MessageState, outcome.state),
    reason: outcome && reasonName(outcome.reason),
    detail: outcome?.detail || undefined,
    edge_id: outcome?.edgeId || undefined,
    session_id: outcome?.sessionId || undefined,
    hops: outcome?.hops && hopFields(outcome.hops),
  }
}

/** The data of a device's result: what its JSON says, or its text where it is none. */
export function resultValue(data: Uint8Array): unknown {
  const text = Buffer.from(data).toString()
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

function hopFields(hops: HopTimes): object {
  return {
    accepted: isoTime(hops.accepted),
    consumed: isoTime(hops.consumed),
    looked_up: isoTime(hops.lookedUp),
    sent_to_edge: isoTime(hops.sentToEdge),
    written: isoTime(hops.written),
    answered: isoTime(hops.answered),
  }
}

function reasonName(reason: StateReason): string | undefined {
  return reason === StateReason.UNSPECIFIED ? undefined : nameOf(StateReason, reason)
}
