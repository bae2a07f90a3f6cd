/** What one publisher sent and was answered. All times here and below are ms since the Unix epoch, by one machine's clock. */
export interface PublishedMessage {
  /** The publisher's own name of it; it travels in the payload, so that a device can say which message it got. */
  readonly key: string
  readonly deviceId: string
  readonly mode: 'QUEUED' | 'DIRECT'
  readonly priority: 'HIGH' | 'NORMAL' | 'LOW'
  readonly ttlMs: number
  /** When the call was begun. */
  readonly sentAt: number
  /** Set once the call has succeeded: the message is accepted. */
  answer?: PublishAnswer
  /** Set once the call has failed: nothing is promised, and nothing excluded. */
  failure?: string
}

/** What the plane answered. */
export interface PublishAnswer {
  readonly answeredAt: number
  readonly messageId: string
  readonly acceptTime: number
  readonly expireTime: number
  /** As in the contract, without prefix. */
  readonly state: string
  readonly reason: string
}

/** All that one device knows, over all its processes. */
export interface DeviceLog {
  readonly deviceId: string
  readonly processes: readonly DeviceProcessLog[]
}

/** One life of a device: what it remembers of ids ends with it. */
export interface DeviceProcessLog {
  readonly sessions: readonly SessionSpan[]
  /** In the order in which they were handed to the handler. */
  readonly handled: readonly HandledMessage[]
}

/** One open session, from `welcome` to the moment at which the device gave it up or saw it end. */
export interface SessionSpan {
  readonly sessionId: string
  readonly openedAt: number
  /** Undefined: still open. */
  endedAt: number | undefined
}

/** One message that came to a handler. */
export interface HandledMessage {
  readonly messageId: string
  /** From the payload. */
  readonly key: string
  /** From the payload: the device that the publisher meant. */
  readonly meantFor: string
  /** The session that brought it. */
  readonly sessionId: string
  readonly handledAt: number
  readonly redelivered: boolean
}

/** A router's line about a message that needs no next step. */
export interface SettledMessage {
  readonly messageId: string
  readonly deviceId: string
  readonly state: string
  readonly reason: string
  readonly settledAt: number
  /** How often it was handed to an edge. */
  readonly attemptCount: number
}

/** Everything that was seen of a run. */
export interface Story {
  readonly published: readonly PublishedMessage[]
  readonly devices: readonly DeviceLog[]
  readonly settled: readonly SettledMessage[]
}
