/** What one publisher sent and was answered. All times here and below are ms since the Unix epoch, by one machine's clock. */
export interface PublishedMessage {
  /** The publisher's own name of it; it travels in the payload, so that a device can say which message it got. */
  readonly key: string
  /** Empty where the message is for an account. */
  readonly deviceId: string
  /** Set where the message is for all devices of an account. */
  readonly accountId?: string
  /** Set where the message may be published again, as the same. All its calls have one `key`. */
  readonly idempotencyKey?: string
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
  /** The account that it logs in to; undefined for none. */
  readonly accountId?: string | undefined
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
  /** From the payload: whom the publisher meant, a device or `account/` and an account's id. */
  readonly meantFor: string
  /** The session that brought it. */
  readonly sessionId: string
  readonly handledAt: number
  readonly redelivered: boolean
}

/** A router's line about a message that needs no next step there. One that was stored has a second line, once it has left the inbox. */
export interface SettledMessage {
  readonly messageId: string
  readonly deviceId: string
  readonly state: string
  readonly reason: string
  readonly settledAt: number
  /** Where the router had it from: `queue`, `direct` or `inbox`. */
  readonly origin: string
  /** How often it was handed to an edge; 0 where that is not told. */
  readonly attemptCount: number
}

/** What the plane says of a message when it is asked. */
export interface ReadMessage {
  readonly messageId: string
  readonly readAt: number
  /** Empty: nothing is recorded. */
  readonly devices: readonly ReadOutcome[]
}

/** What the plane says of a message at one device. */
export interface ReadOutcome {
  readonly deviceId: string
  readonly state: string
  readonly reason: string
  readonly final: boolean
}

/** Where the plane says that a device is. */
export interface ReadDevice {
  readonly deviceId: string
  readonly readAt: number
  readonly connected: boolean
  readonly sessionId: string
}

/** What the plane answered after the load was over and had time to end. */
export interface Rest {
  readonly messages: readonly ReadMessage[]
  readonly devices: readonly ReadDevice[]
}

/** Everything that was seen of a run. */
export interface Story {
  readonly published: readonly PublishedMessage[]
  readonly devices: readonly DeviceLog[]
  readonly settled: readonly SettledMessage[]
  /** Undefined: nobody has asked. */
  readonly rest?: Rest | undefined
}
