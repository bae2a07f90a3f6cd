import { restViolations } from './rest-checks.ts'
import type { HandledMessage, PublishedMessage, Story } from './story.ts'
import {
  type Accepted,
  deliveredStates,
  type End,
  endsOf,
  indexOf,
  isDelivered,
  nameOf,
  readingOf,
  type StoryIndex,
  storingsOf,
  wasConnectedThroughout,
} from './story-index.ts'

export interface CheckOptions {
  /** How long after a session has ended its device may not know it yet, in ms. */
  readonly noticeMs?: number
  /** How far clocks and event loops may be behind when expiry is judged, in ms. */
  readonly toleranceMs?: number
  /** Reasons for which messages with time to live above 0 may be dropped in this run. Default: none. */
  readonly dropReasons?: readonly string[]
  /** An edge was gone for so long that its devices had to count as offline, whatever they believed. Default false. */
  readonly edgesGone?: boolean
  /** How long something may wait in the inbox of a connected device, in ms. */
  readonly inboxWaitMs?: number
}

export interface CheckReport {
  /** One sentence each; empty when the plane has kept its promises. */
  readonly violations: readonly string[]
  readonly counts: CheckCounts
}

export interface CheckCounts {
  readonly accepted: number
  /** Calls that failed. */
  readonly refused: number
  /** Accepted messages that came to a handler of their device. */
  readonly delivered: number
  /** Accepted messages that did not, by how they ended. */
  readonly undelivered: Readonly<Record<string, number>>
  /** Accepted messages that lay in an inbox for a time. */
  readonly stored: number
  /** Messages whose order was compared. */
  readonly ordered: number
}

/** What time to live 0 may end with: such a message is never stored, and never sent again once it may have been written. */
const nowOrNeverReasons = ['OFFLINE', 'UNREACHABLE', 'UNKNOWN']

/** Compares what publishers, devices and routers say. Pure: it reads logs and knows nothing of processes. */
export function check(story: Story, options: CheckOptions = {}): CheckReport {
  const { noticeMs = 250, toleranceMs = 500, dropReasons = [], edgesGone = false, inboxWaitMs = 10_000 } = options
  const index = indexOf(story)
  const violations = [
    ...lost(index),
    ...foreign(index),
    ...handledTwice(index),
    ...falselyAcknowledged(index),
    ...wrongEnds(index, dropReasons, toleranceMs),
    ...(edgesGone
      ? []
      : [...calledOffline(index, noticeMs), ...expiredBesideSession(index), ...waitedBesideSession(index, inboxWaitMs)]),
    ...handledLate(index, toleranceMs),
    ...outOfOrder(index).violations,
    ...restViolations(index, { waitMaxMs: inboxWaitMs }),
  ]
  return { violations, counts: countsOf(index) }
}

/** Accepted messages of which neither their device nor a router has said anything yet. */
export function unfinished(story: Story): PublishedMessage[] {
  const index = indexOf(story)
  return index.accepted.filter((message) => !isDelivered(index, message) && !hasWord(index, message))
}

/** Accepted messages without a router's last word, also where the device has them already. */
export function unsettled(story: Story): PublishedMessage[] {
  const index = indexOf(story)
  return index.accepted.filter((message) => !index.settledById.has(message.answer.messageId))
}

function hasWord(index: StoryIndex, message: Accepted): boolean {
  return endsOf(index, message).length > 0 || storingsOf(index, message).length > 0
}

/** Every accepted message comes to its device, or lies in its inbox, or ends in a state that says why not. */
function lost(index: StoryIndex): string[] {
  const isKept = (message: Accepted) =>
    // Where the plane was asked, its word counts and not what a router once said.
    index.story.rest === undefined ? storingsOf(index, message).length > 0 : readingOf(index, message)?.state === 'STORED'
  return index.accepted
    .filter((message) => !isDelivered(index, message) && endsOf(index, message).length === 0 && !isKept(message))
    .map((message) => `${nameOf(message)} was accepted and is lost: no handler has seen it, no inbox has it, nobody has ended it`)
}

/** A device gets what is meant for it, and nothing else. */
function foreign({ story, byId }: StoryIndex): string[] {
  const violations: string[] = []
  for (const { deviceId, processes } of story.devices) {
    for (const { messageId, key, meantFor } of processes.flatMap(({ handled }) => handled)) {
      if (meantFor !== deviceId) violations.push(`${deviceId} has handled message ${messageId} (${key}), meant for ${meantFor}`)
      const sent = byId.get(messageId)
      if (sent !== undefined && sent.key !== key) violations.push(`${deviceId} has got ${key} under the id of ${sent.key}`)
    }
  }
  return violations
}

/** A process of a device hands each id to its handler once. */
function handledTwice({ story }: StoryIndex): string[] {
  const violations: string[] = []
  for (const { deviceId, processes } of story.devices) {
    for (const { handled } of processes) {
      for (const [messageId, times] of Map.groupBy(handled, (message) => message.messageId)) {
        if (times.length > 1) violations.push(`${deviceId} has handled message ${messageId} ${times.length} times in one process`)
      }
    }
  }
  return violations
}

/** Nobody says delivered of what no handler has seen. */
function falselyAcknowledged(index: StoryIndex): string[] {
  return index.accepted
    .filter((message) => !isDelivered(index, message) && endsOf(index, message).some(({ state }) => deliveredStates.has(state)))
    .map((message) => `${nameOf(message)} counts as acknowledged, but no handler has seen it`)
}

/** Final states carry the reasons that this run allows, and expired means expired. */
function wrongEnds(index: StoryIndex, dropReasons: readonly string[], toleranceMs: number): string[] {
  return index.accepted.flatMap((message) => {
    const allowed = message.ttlMs === 0 ? [...dropReasons, ...nowOrNeverReasons] : dropReasons
    const expiredBy = message.answer.expireTime - toleranceMs
    const isRight = ({ state, reason, at }: End) => {
      if (deliveredStates.has(state)) return true
      if (state === 'DROPPED') return allowed.includes(reason)
      // A device refuses what expires in its hands.
      return (state === 'EXPIRED' || (state === 'FAILED' && reason === 'NACKED')) && at >= expiredBy
    }
    // The answer to a direct call and what is read at the end repeat the router's line.
    const wrong = endsOf(index, message).find((end) => !isRight(end))
    if (wrong === undefined) return []
    const { state, reason, at } = wrong
    const afterMs = Math.round(at - message.answer.acceptTime)
    return `${nameOf(message)} ended ${state} (${reason || 'no reason'}) after ${afterMs} ms, which nothing in this run explains`
  })
}

/** Nobody is called offline, and what was now or never not unreachable, whose device had a session all the time. */
function calledOffline(index: StoryIndex, noticeMs: number): string[] {
  const isCalledOffline = ({ state, reason }: End) =>
    reason === 'OFFLINE' ? state === 'DROPPED' || state === 'STORED' : state === 'DROPPED' && reason === 'UNREACHABLE'
  return index.accepted.flatMap((message) => {
    const { acceptTime } = message.answer
    const word = [...endsOf(index, message), ...storingsOf(index, message)].find(isCalledOffline)
    const device = index.deviceById.get(message.deviceId)
    if (word === undefined || !wasConnectedThroughout(device, acceptTime, word.at + noticeMs)) return []
    const how = `${word.state.toLowerCase()} as ${word.reason} after ${Math.round(word.at - acceptTime)} ms`
    return `${nameOf(message)} was ${how}, though its device had a session all the time`
  })
}

/** Nothing with time to live expires whose device had a session from acceptance to expiry. */
function expiredBesideSession(index: StoryIndex): string[] {
  return index.accepted
    .filter(
      (message) =>
        message.ttlMs > 0 &&
        !isDelivered(index, message) &&
        endsOf(index, message).some(({ state }) => state === 'EXPIRED') &&
        wasConnectedThroughout(index.deviceById.get(message.deviceId), message.answer.acceptTime, message.answer.expireTime),
    )
    .map((message) => `${nameOf(message)} has expired, though its device had a session all the time`)
}

/** What was stored comes soon to a device that has a session all the while; what never comes is told by what is read at rest. */
function waitedBesideSession(index: StoryIndex, inboxWaitMs: number): string[] {
  return index.accepted.flatMap((message) => {
    const [stored] = storingsOf(index, message)
    const [handling] = index.handlings(message)
    if (stored === undefined || handling === undefined || handling.handledAt - stored.at <= inboxWaitMs) return []
    if (!wasConnectedThroughout(index.deviceById.get(message.deviceId), stored.at, handling.handledAt)) return []
    const waitedMs = Math.round(handling.handledAt - stored.at)
    return `${nameOf(message)} waited ${waitedMs} ms in the inbox, though its device had a session all the time`
  })
}

/** Nothing comes to a handler after its time. */
function handledLate({ story, byId }: StoryIndex, toleranceMs: number): string[] {
  const violations: string[] = []
  for (const { deviceId, processes } of story.devices) {
    for (const { messageId, handledAt } of processes.flatMap(({ handled }) => handled)) {
      const expireTime = byId.get(messageId)?.answer.expireTime ?? Number.POSITIVE_INFINITY
      if (handledAt > expireTime + toleranceMs) {
        violations.push(
          `${deviceId} has handled message ${messageId} ${Math.round(handledAt - expireTime)} ms after it had expired`,
        )
      }
    }
  }
  return violations
}

/**
 * Queued messages of one device and priority come in publish order within one session. One that was accepted before another was even sent
 * comes first. Only first attempts count: what had to be sent again comes when it comes.
 */
function outOfOrder({ story, byId, settledById }: StoryIndex): { violations: string[]; compared: number } {
  const violations: string[] = []
  let compared = 0
  const isFirstAttempt = ({ messageId, redelivered }: HandledMessage) => {
    const settled = settledById.get(messageId) ?? []
    // From the queue straight to the device: what lay in an inbox comes when it comes.
    const [only] = settled
    return !redelivered && settled.length === 1 && only?.attemptCount === 1 && only.state === 'ACKNOWLEDGED'
  }
  for (const { deviceId, processes } of story.devices) {
    for (const { handled } of processes) {
      const groups = Map.groupBy(handled, ({ messageId, sessionId }) => `${sessionId} ${byId.get(messageId)?.priority}`)
      for (const group of groups.values()) {
        const messages = group.filter(isFirstAttempt).flatMap(({ messageId }) => byId.get(messageId) ?? [])
        let latest: Accepted | undefined
        for (const message of messages) {
          if (message.mode !== 'QUEUED') continue
          if (latest !== undefined) compared++
          if (latest !== undefined && message.answer.answeredAt < latest.sentAt) {
            violations.push(`${deviceId} has handled ${nameOf(latest)} before ${nameOf(message)}, which was published earlier`)
          }
          if (latest === undefined || message.sentAt > latest.sentAt) latest = message
        }
      }
    }
  }
  return { violations, compared }
}

function countsOf(index: StoryIndex): CheckCounts {
  const undelivered: Record<string, number> = {}
  const missed = index.accepted.filter((message) => !isDelivered(index, message))
  for (const message of missed) {
    const end = endsOf(index, message)[0] ?? readingOf(index, message) ?? storingsOf(index, message)[0]
    const how = end === undefined ? 'LOST' : `${end.state} ${end.reason}`.trim()
    undelivered[how] = (undelivered[how] ?? 0) + 1
  }
  return {
    accepted: index.accepted.length,
    refused: index.story.published.filter(({ failure }) => failure !== undefined).length,
    delivered: index.accepted.length - missed.length,
    undelivered,
    stored: index.accepted.filter((message) => storingsOf(index, message).length > 0).length,
    ordered: outOfOrder(index).compared,
  }
}
