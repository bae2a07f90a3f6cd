import type { CloseSession, CloseSessionResult, Delivery, InboxReadyResult, Outcome } from '../../gen/push/internal/v1/edge.ts'

/** One delivery as dispatch hands it to a link. The link calls back until it has said `lost`, or until it is told to forget. */
export interface LinkDelivery {
  /** HIGH has a window of its own, so that bulk cannot stand in its way. */
  readonly high: boolean
  /** Rough size on the wire in bytes. */
  readonly byteCount: number
  /** A result is wanted after the acknowledgement. */
  readonly wantsResult: boolean
  /** Builds the delivery at the moment it goes onto the stream, so that the remaining time is right. */
  build(deliveryId: number): Delivery
  /** It has been handed to the stream. */
  onSent(): void
  /** The edge has said something of it. More may follow. */
  onOutcome(outcome: Outcome): void
  /** Nothing more will be heard of it. `unknown`: it was handed over; `unreachable` and `gone`: it was not. */
  onLost(how: 'unknown' | 'unreachable' | 'gone'): void
}

/** What became of a close that a link carried. */
export type CloseAnswer = CloseSessionResult | 'unanswered' | 'gone'

/** What became of a poke that a link carried. */
export type PokeAnswer = InboxReadyResult | 'unanswered' | 'gone'

/** Names a session at the edge. */
export interface SessionName {
  readonly deviceId: string
  readonly sessionId: string
}

/** An answer to a delivery that nobody waits for any more. */
export interface LateOutcome {
  readonly deviceId: string
  readonly messageId: string
  readonly outcome: Outcome
}

/** How a link stands. `down`: the last attempt to open a stream failed, and the next one waits for the back-off. */
export type LinkState = 'idle' | 'opening' | 'open' | 'down' | 'gone'

/** What dispatch and the services need of a link. */
export interface Link {
  /** How the link stands now. */
  readonly state: LinkState
  /** Sends a delivery as soon as the window allows. Returns the number by which `forget` knows it. Calls back in a later tick at the earliest. */
  deliver(delivery: LinkDelivery): number
  /** Stops calling back for a delivery. What is on its way stays on its way. */
  forget(id: number): void
  /** Asks the edge to close a session. Never rejects. */
  closeSession(request: Omit<CloseSession, 'closeId'>, timeoutMs: number): Promise<CloseAnswer>
  /** Tells a session that messages wait in its device's inbox. Never refused by the link's cap, never rejects. */
  poke(session: SessionName, timeoutMs: number): Promise<PokeAnswer>
  /**
   * Remembers a poke that was not answered: it goes first when a stream opens again, and is dropped when the edge is gone, or has
   * lapsed and cannot be reached. With more of them than are remembered, the edge is asked to let all its sessions look.
   */
  owePoke(session: SessionName): void
  /** False from the moment at which the edge has left something unanswered, or no stream could be opened, until it says something again. */
  readonly answering: boolean
  /** Deliveries that are not finished with this link. */
  readonly unansweredCount: number
}

/** Bounds of a link. */
export interface EdgeLinkLimits {
  /** Deliveries without a first outcome, in each of the two windows. */
  readonly windowCountMax: number
  /** Their bytes, in each of the two windows. */
  readonly windowBytesMax: number
  /** How long to wait for a first outcome, or for the stream to take the delivery, in ms. */
  readonly firstOutcomeTimeoutMs: number
  /** How long opening a stream may take in ms. */
  readonly openTimeoutMs: number
  /** A stream without traffic for this long in ms is closed. */
  readonly idleTimeoutMs: number
}

/** The bounds a router uses unless told otherwise. */
export const defaultLinkLimits: EdgeLinkLimits = {
  windowCountMax: 512,
  windowBytesMax: 1024 * 1024,
  firstOutcomeTimeoutMs: 5_000,
  openTimeoutMs: 3_000,
  idleTimeoutMs: 600_000,
}
