import type { MessageState, StateReason } from '../../gen/push/v1/message.ts'

/** When a message passed which part, in µs since the epoch; 0: it did not. */
export interface Hops {
  accepted: number
  consumed: number
  lookedUp: number
  sentToEdge: number
  written: number
  answered: number
}

/** How far a message got at one of an account's devices. */
export interface DeviceSettlement {
  readonly deviceId: string
  readonly settlement: Settlement
  /** When that was, in µs since the epoch. */
  readonly time: number
}

/** How far a message got, and why. */
export interface Settlement {
  readonly state: MessageState
  readonly reason: StateReason
  /** The device's own words, or more about the reason. */
  readonly detail: string
  readonly edgeId: string
  readonly sessionId: string
  /** How often it was handed to an edge's link. */
  readonly attemptCount: number
  /** Nothing follows. */
  readonly final: boolean
  readonly hops: Readonly<Hops>
}
