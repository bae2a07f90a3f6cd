import { FlushStop } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageState, StateReason } from '../../gen/push/v1/message.ts'

/** Where a message came from: the queue, or a publisher that waits. What comes from an inbox has a table of its own. */
export type Origin = 'queue' | 'direct'

/** What has just happened to a message on its way to one device. The first twelve are what edges say; the rest is what the router sees itself. */
export type DispatchEvent =
  | { readonly kind: 'WRITTEN'; readonly final: boolean }
  | { readonly kind: 'ACKNOWLEDGED' }
  | { readonly kind: 'RESULT'; readonly ok: boolean }
  | { readonly kind: 'NACKED' }
  | { readonly kind: 'NOT_CONNECTED' }
  | { readonly kind: 'CLOSED_UNACKNOWLEDGED' }
  | { readonly kind: 'RATE_LIMITED' }
  | { readonly kind: 'SLOW_CONSUMER' }
  | { readonly kind: 'ACCOUNT_MISMATCH' }
  | { readonly kind: 'EXPIRED' }
  | { readonly kind: 'REPLACED' }
  | { readonly kind: 'TOO_LARGE' }
  /** It was handed to the stream and no first outcome came: the stream broke, or 5 s passed. */
  | { readonly kind: 'UNKNOWN' }
  /** It was not handed to the stream: no stream to the edge is open, and the edge is not gone. */
  | { readonly kind: 'UNREACHABLE' }
  /** More is unanswered on the edge's link than the link may hold. */
  | { readonly kind: 'LINK_FULL' }
  /** The edge is gone: another process is at its address, or its lease has lapsed and no stream to it can be opened. */
  | { readonly kind: 'EDGE_GONE' }
  /** The registry named a session on an edge that is not gone. `refused`: the very session that has just answered NOT_CONNECTED. */
  | { readonly kind: 'ROUTE_FOUND'; readonly refused: boolean }
  /** None of the rows that the registry returned is usable. `more`: it has older ones. */
  | { readonly kind: 'NO_ROUTE'; readonly more: boolean }
  /** Written, and the device's answer did not come in time. */
  | { readonly kind: 'ACK_TIMEOUT' }
  /** The message may not be held any longer. */
  | { readonly kind: 'HOLD_ENDED' }
  /** The message's time to live has passed while it was here. */
  | { readonly kind: 'DEADLINE_PASSED' }

/** What the next step depends on, besides the event. */
export interface Situation {
  readonly origin: Origin
  /** Other devices get the message by the same direct call: it cannot be refused for this one alone. */
  readonly sharedCall: boolean
  readonly confirm: ConfirmLevel
  /** Time to live 0: never stored, and never sent again once it may have been written. */
  readonly nowOrNever: boolean
  /** An attempt may have reached the device. */
  readonly maybeWritten: boolean
  /** The device's connection has it, and its answer is awaited. */
  readonly written: boolean
  /** How many different routes have answered NOT_CONNECTED. */
  readonly moveCount: number
  /** The row of the refusing session has been unregistered already. */
  readonly unregistered: boolean
}

/** What to do next. */
export type NextStep =
  /** Hand it to the route found. */
  | { readonly step: 'deliver' }
  /** Wait for the device's answer, at most the acknowledgement timeout. */
  | { readonly step: 'await-answer' }
  /** Ask the registry, past the route cache, after the wait named. */
  | { readonly step: 'look-up'; readonly wait: 'none' | 'short' | 'back-off'; readonly allRows?: true }
  /** Remove the refusing session's row by its key, then ask the registry again. */
  | { readonly step: 'unregister' }
  /** The device cannot have it now: store it. Time to live 0 never comes here. */
  | { readonly step: 'store'; readonly reason: StateReason }
  /** Done. */
  | { readonly step: 'finish'; readonly state: MessageState; readonly reason: StateReason }
  /** It can be delivered to nobody: put it where operators see it. */
  | { readonly step: 'dead-letter'; readonly reason: StateReason }
  /** Tell the publisher that waits that the message itself is at fault, or that the edge has too much to do. */
  | { readonly step: 'refuse'; readonly reason: 'PAYLOAD_TOO_LARGE' | 'RATE_EXCEEDED' }

/** What to do next with a message that came from the inbox: its row is still there, so nothing is ever stored again. */
export type InboxStep =
  /** Wait for the device's answer, at most the acknowledgement timeout. */
  | { readonly step: 'await-answer' }
  /** It is final: record it, then remove the entry. */
  | { readonly step: 'remove'; readonly state: MessageState; readonly reason: StateReason }
  /** It can be delivered to nobody: put it where operators see it, record it, remove the entry. */
  | { readonly step: 'dead-letter'; readonly reason: StateReason }
  /** Written, and the device has not answered: the entry stays, and the flush goes on without it. */
  | { readonly step: 'leave' }
  /** The flush ends here; the entry stays. */
  | { readonly step: 'stop'; readonly why: FlushStop }

/** How many different routes may answer NOT_CONNECTED before the device counts as unreachable. */
export const moveCountMax = 3

/**
 * The outcome table: decides what follows an event. Pure; every line has a test row in `outcomes.test.ts`.
 */
export function nextStep(event: DispatchEvent, situation: Situation): NextStep {
  switch (event.kind) {
    case 'WRITTEN':
      return event.final || situation.confirm === ConfirmLevel.WRITTEN ? finish(MessageState.WRITTEN) : { step: 'await-answer' }
    case 'ACKNOWLEDGED':
      return finish(MessageState.ACKNOWLEDGED)
    case 'RESULT':
      return event.ok ? finish(MessageState.COMPLETED) : finish(MessageState.FAILED, StateReason.RESULT_FAILED)
    case 'NACKED':
      return finish(MessageState.FAILED, StateReason.NACKED)
    case 'NOT_CONNECTED':
      return situation.moveCount >= moveCountMax ? store(situation, StateReason.UNREACHABLE) : { step: 'look-up', wait: 'none' }
    case 'CLOSED_UNACKNOWLEDGED':
      // The device is likely to be on its way back: a moment later the registry knows where.
      return situation.nowOrNever ? drop(StateReason.UNKNOWN) : { step: 'look-up', wait: 'short' }
    case 'SLOW_CONSUMER':
      return store(situation, StateReason.SLOW_CONSUMER)
    case 'RATE_LIMITED':
      return store(situation, StateReason.RATE_LIMITED)
    case 'LINK_FULL':
      // One edge that does not answer must not use up what all edges share.
      return situation.origin === 'direct' && !situation.sharedCall
        ? { step: 'refuse', reason: 'RATE_EXCEEDED' }
        : store(situation, StateReason.UNREACHABLE)
    case 'ACCOUNT_MISMATCH':
      return drop(StateReason.ACCOUNT_MISMATCH)
    case 'EXPIRED':
      return finish(MessageState.EXPIRED)
    case 'REPLACED':
      return finish(MessageState.REPLACED)
    case 'TOO_LARGE':
      if (situation.origin === 'queue') return { step: 'dead-letter', reason: StateReason.TOO_LARGE }
      return situation.sharedCall ? drop(StateReason.TOO_LARGE) : { step: 'refuse', reason: 'PAYLOAD_TOO_LARGE' }
    case 'UNKNOWN':
      return situation.nowOrNever ? drop(StateReason.UNKNOWN) : { step: 'look-up', wait: 'back-off' }
    case 'UNREACHABLE':
      // Nothing was sent this time; time to live 0 may try again unless an earlier attempt may have been written.
      return situation.nowOrNever && situation.maybeWritten ? drop(StateReason.UNKNOWN) : { step: 'look-up', wait: 'back-off' }
    case 'EDGE_GONE':
      return situation.nowOrNever && situation.maybeWritten ? drop(StateReason.UNKNOWN) : { step: 'look-up', wait: 'none' }
    case 'ROUTE_FOUND':
      if (!event.refused) return { step: 'deliver' }
      // The edge has just said that this session is not there: its row is a ghost's, unless that was said of it twice.
      return situation.unregistered ? store(situation, StateReason.UNREACHABLE) : { step: 'unregister' }
    case 'NO_ROUTE':
      return event.more ? { step: 'look-up', wait: 'none', allRows: true } : store(situation, StateReason.OFFLINE)
    case 'ACK_TIMEOUT':
      return store(situation, StateReason.ACK_TIMEOUT)
    case 'HOLD_ENDED':
      // What an edge has taken and said nothing of is not unreachable: it may wait in the outbox of a device that reads slowly.
      return store(
        situation,
        situation.written ? StateReason.ACK_TIMEOUT : situation.maybeWritten ? StateReason.UNKNOWN : StateReason.UNREACHABLE,
      )
    case 'DEADLINE_PASSED':
      return finish(MessageState.EXPIRED)
  }
}

/**
 * The outcome table's column for messages from the inbox. Only what an edge says, and the end of the waiting, can happen to them.
 */
export function nextInboxStep(event: DispatchEvent, confirm: ConfirmLevel): InboxStep {
  switch (event.kind) {
    case 'WRITTEN':
      return event.final || confirm === ConfirmLevel.WRITTEN ? remove(MessageState.WRITTEN) : { step: 'await-answer' }
    case 'ACKNOWLEDGED':
      return remove(MessageState.ACKNOWLEDGED)
    case 'RESULT':
      return event.ok ? remove(MessageState.COMPLETED) : remove(MessageState.FAILED, StateReason.RESULT_FAILED)
    case 'NACKED':
      return remove(MessageState.FAILED, StateReason.NACKED)
    case 'ACCOUNT_MISMATCH':
      return remove(MessageState.DROPPED, StateReason.ACCOUNT_MISMATCH)
    case 'EXPIRED':
    case 'DEADLINE_PASSED':
      return remove(MessageState.EXPIRED)
    case 'REPLACED':
      return remove(MessageState.REPLACED)
    case 'TOO_LARGE':
      return { step: 'dead-letter', reason: StateReason.TOO_LARGE }
    case 'ACK_TIMEOUT':
      return { step: 'leave' }
    case 'NOT_CONNECTED':
    case 'CLOSED_UNACKNOWLEDGED':
    case 'EDGE_GONE':
    case 'NO_ROUTE':
      return { step: 'stop', why: FlushStop.NOT_CONNECTED }
    case 'SLOW_CONSUMER':
      return { step: 'stop', why: FlushStop.SLOW_CONSUMER }
    case 'RATE_LIMITED':
      return { step: 'stop', why: FlushStop.RATE_LIMITED }
    case 'LINK_FULL':
    case 'UNKNOWN':
    case 'UNREACHABLE':
    case 'HOLD_ENDED':
    case 'ROUTE_FOUND':
      return { step: 'stop', why: FlushStop.ROUTER }
  }
}

function remove(state: MessageState, reason: StateReason = StateReason.UNSPECIFIED): InboxStep {
  return { step: 'remove', state, reason }
}

function finish(state: MessageState, reason: StateReason = StateReason.UNSPECIFIED): NextStep {
  return { step: 'finish', state, reason }
}

function drop(reason: StateReason): NextStep {
  return finish(MessageState.DROPPED, reason)
}

function store(situation: Situation, reason: StateReason): NextStep {
  return situation.nowOrNever ? drop(reason) : { step: 'store', reason }
}
