import type { HandledMessage, ReadDevice, SessionSpan } from './story.ts'
import {
  type Accepted,
  deliveredStates,
  hasBelonged,
  nameOf,
  readingOf,
  type StoryIndex,
  wasConnectedThroughout,
} from './story-index.ts'

/** How long after a handler got a message its answer is with the edge, in ms. */
const answeredAfterMs = 1_000

export interface RestOptions {
  /** How long something may wait in the inbox of a device that is connected, in ms. */
  readonly waitMaxMs: number
}

/** Compares what the plane answers when all has come to rest with what the devices know. Nothing was asked: nothing is wrong. */
export function restViolations(index: StoryIndex, options: RestOptions): string[] {
  if (index.story.rest === undefined) return []
  return [...readElsewhere(index), ...contradictions(index), ...waiting(index, options), ...sessionsElsewhere(index, options)]
}

/** A message has one outcome at each device that it was for, and none elsewhere. */
function readElsewhere({ byId, readById, deviceById }: StoryIndex): string[] {
  return [...byId].flatMap(([messageId, message]) => {
    const read = readById.get(messageId)?.devices ?? []
    return read.flatMap(({ deviceId, state }, index) => {
      const device = deviceById.get(deviceId)
      const { accountId } = message
      const isFor =
        accountId === undefined ? deviceId === message.deviceId : device !== undefined && hasBelonged(device, accountId)
      if (!isFor) return `${nameOf(message)} reads ${state} at ${deviceId}`
      const again = read.findIndex((one) => one.deviceId === deviceId) < index
      return again ? `${nameOf(message)} reads ${state} at ${deviceId}, which has another outcome` : []
    })
  })
}

/** What a device has handled reads so. Only an answer that may have been lost on its way, of a message that could not be sent again, excuses. */
function contradictions(index: StoryIndex): string[] {
  return index.accepted.flatMap((message) => {
    const readAt = index.readById.get(message.answer.messageId)?.readAt
    const handlings = index.handlings(message)
    if (readAt === undefined || handlings.length === 0 || message.ttlMs === 0) return []
    const reading = readingOf(index, message)
    if (reading !== undefined && deliveredStates.has(reading.state)) return []
    // It has changed its account meanwhile, and what could not be answered any more came again.
    const changed = !message.expected && reading?.reason === 'ACCOUNT_MISMATCH'
    const excused = changed || (readAt > message.answer.expireTime && reading?.state === 'EXPIRED')
    if (excused && !handlings.some((handling) => isAnswered(index, message, handling))) return []
    const words = reading === undefined ? 'nothing is recorded of it' : `it reads ${reading.state} ${reading.reason}`.trim()
    return `${nameOf(message)} was handled by its device, but ${words}`
  })
}

/** Its session went on long enough for the answer to reach the edge. */
function isAnswered({ deviceById }: StoryIndex, { deviceId }: Accepted, { sessionId, handledAt }: HandledMessage): boolean {
  const sessions = deviceById.get(deviceId)?.processes.flatMap((process) => process.sessions) ?? []
  return sessions.some(
    (one) => one.sessionId === sessionId && (one.endedAt ?? Number.POSITIVE_INFINITY) > handledAt + answeredAfterMs,
  )
}

/** Nothing waits in the inbox of a device that is there. */
function waiting(index: StoryIndex, { waitMaxMs }: RestOptions): string[] {
  return index.accepted.flatMap((message) => {
    const readAt = index.readById.get(message.answer.messageId)?.readAt
    const reading = readingOf(index, message)
    if (readAt === undefined || reading === undefined || reading.final) return []
    const since = readAt - waitMaxMs
    const device = index.deviceById.get(message.deviceId)
    if (message.answer.acceptTime > since || !wasConnectedThroughout(device, since, readAt)) return []
    return `${nameOf(message)} reads ${reading.state}, though its device has been connected for ${waitMaxMs} ms`
  })
}

/** Who has an open session is known to have this one. */
function sessionsElsewhere({ story, deviceById }: StoryIndex, { waitMaxMs }: RestOptions): string[] {
  return (story.rest?.devices ?? []).flatMap(({ deviceId, readAt, connected, sessionId }) => {
    const sessions = deviceById.get(deviceId)?.processes.flatMap((process) => process.sessions) ?? []
    const open = sessions.filter((session) => isOpenAt(session, readAt))
    const own = sessions.some((session) => session.sessionId === sessionId && !isEndedAt(session, readAt))
    if (open.some(({ openedAt }) => openedAt < readAt - waitMaxMs) && !(connected && own)) {
      const there = connected ? `session ${sessionId}` : 'no session'
      return `${deviceId} has the open session ${open.map((session) => session.sessionId).join(', ')}, but counts as having ${there}`
    }
    const ended = sessions.find((session) => session.sessionId === sessionId)?.endedAt
    if (connected && ended !== undefined && ended < readAt - waitMaxMs) {
      return `${deviceId} counts as connected by session ${sessionId}, which ended ${Math.round(readAt - ended)} ms ago`
    }
    return []
  })
}

/** What the plane answers is what the device knows: whoever has an open session is known to have it, who has none has none. */
export function isKnownRightly(sessions: readonly SessionSpan[], { connected, sessionId, readAt }: ReadDevice): boolean {
  if (!sessions.some((session) => isOpenAt(session, readAt))) return !connected
  return connected && sessions.some((session) => session.sessionId === sessionId && !isEndedAt(session, readAt))
}

function isOpenAt(session: SessionSpan, at: number): boolean {
  return session.openedAt <= at && !isEndedAt(session, at)
}

/** One that has not even opened has not ended: its row is there before its welcome reaches the device. */
function isEndedAt({ endedAt = Number.POSITIVE_INFINITY }: SessionSpan, at: number): boolean {
  return endedAt <= at
}
