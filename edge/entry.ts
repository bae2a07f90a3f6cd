import type { DeviceResult, Outcome, OutcomeKind } from '../gen/push/internal/v1/edge.ts'

/** An outcome without the number of the delivery that it answers: several deliveries may share it. */
export type OutcomeFacts = Omit<Outcome, 'deliveryId' | 'result'> & { readonly result?: DeviceResult }

/** Where outcomes go: one router's stream. */
export interface AnswerSink {
  /** The stream is over; what is told to it is lost. */
  readonly ended: boolean
  outcome(deliveryId: number, facts: OutcomeFacts): void
}

/** One delivery that waits for outcomes. */
export interface Waiter {
  readonly sink: AnswerSink
  readonly deliveryId: number
}

/** One message for one session, from its acceptance to its last outcome. */
export interface Entry {
  readonly messageId: string
  /** 0 HIGH, 1 NORMAL, 2 LOW. */
  readonly lane: 0 | 1 | 2
  /** HIGH or RECOVERY: may take the places that are kept for these. */
  readonly reserved: boolean
  /** What a newer version of this message has in common with it; undefined when it has no versions. */
  readonly collapse: string | undefined
  readonly acceptTime: number
  /** When it came, on the monotonic clock in ms. */
  readonly waitsSince: number
  /** On the monotonic clock, in ms. */
  readonly expiresAt: number
  /** The account that the session must have; empty for any. */
  readonly accountId: string
  readonly frameBytes: number
  /** The publisher waits for the device's result: an acknowledgement is not the last word. */
  readonly wantsResult: boolean
  /** The frame; let go of once it is written. */
  frame: Buffer | undefined
  waiters: Waiter[]
  /** The outcome WRITTEN, once it was written. */
  written: OutcomeFacts | undefined
  /** The outcome ACKNOWLEDGED, while the result is awaited. */
  acknowledged: OutcomeFacts | undefined
}

/** Most deliveries that wait for one message. Above it the one that waits longest is let go: for its router it is unknown. */
export const waitersMax = 16

/** Adds one more who waits, tells it what there is to tell, and lets go of those whose stream is over. */
export function join(entry: Entry, waiter: Waiter): void {
  entry.waiters = entry.waiters.filter(({ sink }) => !sink.ended).slice(1 - waitersMax)
  entry.waiters.push(waiter)
  if (entry.written !== undefined) waiter.sink.outcome(waiter.deliveryId, entry.written)
  if (entry.acknowledged !== undefined) waiter.sink.outcome(waiter.deliveryId, entry.acknowledged)
}

/** Tells all who wait. Returns false when nobody did any more. */
export function tell(entry: Entry, facts: OutcomeFacts): boolean {
  let told = false
  for (const { sink, deliveryId } of entry.waiters) {
    if (sink.ended) continue
    sink.outcome(deliveryId, facts)
    told = true
  }
  return told
}

/** An outcome of something that was not written. */
export function unwritten(kind: OutcomeKind, sessionId: string, detail = ''): OutcomeFacts {
  return { kind, final: false, writtenTime: 0, answeredTime: 0, sessionId, detail }
}
