import { restViolations } from './rest-checks.ts'
import type { HandledMessage, PublishedMessage, Story } from './story.ts'
import {
  type Accepted,
  type AnsweredMessage,
  deliveredStates,
  type End,
  endsOf,
  hasBelonged,
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
  /** A message to an account counts for each of its devices, here and below; several calls for one message count once. */
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

/** How the payload names an account. */
const accountPrefix = 'account/'

/** What time to live 0 may end with: such a message is never stored, and never sent again once it may have been written. */
const nowOrNeverReasons = ['OFFLINE', 'UNREACHABLE', 'UNKNOWN']

/** Compares what publishers, devices and routers say. Pure: it reads logs and knows nothing of processes. */
export function check(story: Story, options: CheckOptions = {}): CheckReport {
  const { noticeMs = 250, toleranceMs = 500, dropReasons = [], edgesGone = false, inboxWaitMs = 10_000 } = options
  const index = indexOf(story)
  const violations = [
    ...lost(index),
    ...foreign(index),
    ...shownToOthers(index),
    ...outsiders(index),
    ...handledTwice(index),
    ...idsMixedUp(index),
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
  return index.accepted.filter((message) => message.expected && !isDelivered(index, message) && !hasWord(index, message))
}

/** Accepted messages without a router's last word, also where the device has them already. */
export function unsettled(story: Story): PublishedMessage[] {
  const index = indexOf(story)
  const isSettled = ({ answer, deviceId }: Accepted) =>
    index.settledById.get(answer.messageId)?.some((line) => line.deviceId === deviceId) ?? false
  return index.accepted.filter((message) => message.expected && !isSettled(message))
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
    .filter(
      (message) => message.expected && !isDelivered(index, message) && endsOf(index, message).length === 0 && !isKept(message),
    )
    .map((message) => `${nameOf(message)} was accepted and is lost: no handler has seen it, no inbox has it, nobody has ended it`)
}

/** A device gets what is meant for it, and nothing else. */
function foreign({ story, byId }: StoryIndex): string[] {
  const violations: string[] = []
  for (const { deviceId, processes } of story.devices) {
    for (const { messageId, key, meantFor } of processes.flatMap(({ handled }) => handled)) {
      if (meantFor !== deviceId && !meantFor.startsWith(accountPrefix))
        violations.push(`${deviceId} has handled message ${messageId} (${key}), meant for ${meantFor}`)
      const sent = byId.get(messageId)
      if (sent !== undefined && sent.key !== key) violations.push(`${deviceId} has got ${key} under the id of ${sent.key}`)
    }
  }
  return violations
}

/** What is meant for an account comes to devices only while they belong to it. */
function shownToOthers({ story }: StoryIndex): string[] {
  return story.devices.flatMap(({ deviceId, processes }) =>
    processes.flatMap(({ handled, accountId }) =>
      handled
        .filter(({ meantFor }) => meantFor.startsWith(accountPrefix) && meantFor !== `${accountPrefix}${accountId}`)
        .map(
          ({ key, meantFor }) =>
            `${deviceId}, which belonged to ${accountId ?? 'no account'}, has handled ${key}, meant for ${meantFor}`,
        ),
    ),
  )
}

/** Nobody says anything of a message at a device that it was not for. */
function outsiders({ story, byId, deviceById }: StoryIndex): string[] {
  const isFor = ({ deviceId, accountId }: AnsweredMessage, at: string) => {
    if (accountId === undefined) return at === deviceId
    const device = deviceById.get(at)
    return device !== undefined && hasBelonged(device, accountId)
  }
  return story.settled.flatMap(({ messageId, deviceId, state }) => {
    const message = byId.get(messageId)
    if (message === undefined || isFor(message, deviceId)) return []
    return `message ${messageId} (${message.key}) was ${state} at ${deviceId}, which it was not for`
  })
}

/** One idempotency key is one message, and one message has one id. */
function idsMixedUp({ story }: StoryIndex): string[] {
  const violations: string[] = []
  const answered = story.published.filter(({ answer }) => answer !== undefined)
  for (const [key, calls] of Map.groupBy(answered, (call) => call.key)) {
    const ids = new Set(calls.map(({ answer }) => answer?.messageId))
    if (ids.size > 1) violations.push(`${key} was published ${calls.length} times, and has the ids ${[...ids].join(', ')}`)
  }
  for (const [id, calls] of Map.groupBy(answered, ({ answer }) => answer?.messageId)) {
    const keys = new Set(calls.map(({ key }) => key))
    if (keys.size > 1) violations.push(`${[...keys].join(', ')} have one id, ${id}`)
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
      // The publisher's name of a message tells repeats that the plane takes for two messages.
      for (const [key, times] of Map.groupBy(handled, (message) => message.key)) {
        const ids = new Set(times.map(({ messageId }) => messageId))
        if (ids.size > 1) violations.push(`${deviceId} has handled ${key} under ${ids.size} ids in one process`)
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
      if (state === 'DROPPED' && reason === 'ACCOUNT_MISMATCH') return !message.expected
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
function outOfOrder({ story, byId, settledById, repeatedIds }: StoryIndex): { violations: string[]; compared: number } {
  const violations: string[] = []
  let compared = 0
  const isFirstAttempt = ({ messageId, redelivered }: HandledMessage) => {
    // Between targets no order is promised, and a repeat may come at either of its places.
    if (repeatedIds.has(messageId) || byId.get(messageId)?.accountId !== undefined) return false
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
        let latest: AnsweredMessage | undefined
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
