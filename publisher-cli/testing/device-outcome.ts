import { type HopTimes, MessageOutcome, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { DeviceOutcome } from '../../gen/push/v1/publish.ts'

/** What a test says of a message at a device; times are ms after the start of 2026. */
export interface DeviceFacts {
  readonly deviceId?: string
  readonly final?: boolean
  readonly reason?: keyof typeof StateReason
  readonly detail?: string
  readonly at?: number
  readonly hops?: Partial<Record<keyof HopTimes, number>>
  readonly recorded?: readonly [state: keyof typeof MessageState, at: number, reason?: keyof typeof StateReason][]
  readonly result?: string
}

/** A message's outcome at a device. */
export function deviceAt(state: keyof typeof MessageState, facts: DeviceFacts = {}): DeviceOutcome {
  const {
    deviceId = 'demo',
    final = false,
    reason = 'UNSPECIFIED',
    detail = '',
    at = 0,
    hops = {},
    recorded = [],
    result,
  } = facts
  return DeviceOutcome.fromPartial({
    deviceId,
    final,
    outcome: MessageOutcome.fromPartial({
      state: MessageState[state],
      reason: StateReason[reason],
      detail,
      edgeId: 'edge-1',
      sessionId: 's-1',
      hops: Object.fromEntries(Object.entries(hops).map(([hop, ms]) => [hop, in2026(ms)])),
    }),
    time: in2026(at),
    recorded: recorded.map(([recordedState, ms, why = 'UNSPECIFIED']) => ({
      state: MessageState[recordedState],
      reason: StateReason[why],
      time: in2026(ms),
    })),
    ...(result === undefined ? {} : { result: Buffer.from(result) }),
  })
}

/** So many ms after the start of 2026. */
export function in2026(ms: number) {
  const micros = Math.round(ms * 1_000)
  return { seconds: 1_767_225_600 + Math.floor(micros / 1_000_000), nanos: (micros % 1_000_000) * 1_000 }
}
