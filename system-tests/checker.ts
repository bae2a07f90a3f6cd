import type { DeviceLog, HandledMessage, PublishAnswer, PublishedMessage, SettledMessage, Story } from './story.ts'

export interface CheckOptions {
  /** How long after a session has ended its device may not know it yet, in ms. */
  readonly noticeMs?: number
  /** How far clocks and event loops may be behind when expiry is judged, in ms. */
  readonly toleranceMs?: number
  /** Reasons for which messages may be dropped in this run. Everything else is a violation. */
  readonly dropReasons?: readonly string[]
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
  /** Messages whose order was compared. */
  readonly ordered: number
}

const deliveredStates = new Set(['ACKNOWLEDGED', 'COMPLETED'])
/** Sending a message with time to live 0 again is not allowed, so it may end unknown. */
const nowOrNeverReasons = ['UNKNOWN']

/** Compares what publishers, devices and routers say. Pure: it reads logs and knows nothing of processes. */
export function check(story: Story, options: CheckOptions = {}): CheckReport {
  const { noticeMs = 250, toleranceMs = 500, dropReasons = ['OFFLINE', 'UNREACHABLE'] } = options
  const index = indexOf(story)
  const violations = [
    ...lost(index),
    ...foreign(index),
    ...handledTwice(index),
    ...falselyAcknowledged(index),
    ...wrongEnds(index, dropReasons, toleranceMs),
    ...dropsWithoutExcuse(index, noticeMs),
    ...handledLate(index, toleranceMs),
    ...outOfOrder(index).violations,
  ]
  return { violations, counts: countsOf(index) }
}

/** Accepted messages of which neither their device nor a router has said anything final yet. */
export function unfinished(story: Story): PublishedMessage[] {
  const index = indexOf(story)
  return index.accepted.filter((message) => !index.isDelivered(message) && endsOf(index, message).length === 0)
}

/** Accepted messages without a router's last word, also where the device has them already. */
export function unsettled(story: Story): PublishedMessage[] {
  const index = indexOf(story)
  return index.accepted.filter((message) => !index.settledById.has(message.answer.messageId))
}

type Accepted = PublishedMessage & { readonly answer: PublishAnswer }

interface StoryIndex {
  readonly story: Story
  readonly accepted: readonly Accepted[]
  readonly byId: ReadonlyMap<string, Accepted>
  readonly deviceById: ReadonlyMap<string, DeviceLog>
  readonly settledById: ReadonlyMap<string, readonly SettledMessage[]>
  isDelivered(message: Accepted): boolean
}

function indexOf(story: Story): StoryIndex {
  const accepted = story.published.filter((message): message is Accepted => message.answer !== undefined)
  const deviceById = new Map(story.devices.map((device) => [device.deviceId, device]))
  const settledById = Map.groupBy(story.settled, ({ messageId }) => messageId)
  const handledIds = new Map(
    story.devices.map((device) => [
      device.deviceId,
      new Set(device.processes.flatMap(({ handled }) => handled.map(({ messageId }) => messageId))),
    ]),
  )
  return {
    story,
    accepted,
    byId: new Map(accepted.map((message) => [message.answer.messageId, message])),
    deviceById,
    settledById,
    isDelivered: ({ deviceId, answer }) => handledIds.get(deviceId)?.has(answer.messageId) ?? false,
  }
}

/** One final word about a message: a router's line, or the answer to a direct call. */
interface End {
  readonly state: string
  readonly reason: string
  readonly at: number
}

function endsOf({ settledById }: StoryIndex, { mode, answer }: Accepted): End[] {
  const settled = settledById.get(answer.messageId) ?? []
  const ends = settled.map(({ state, reason, settledAt }) => ({ state, reason, at: settledAt }))
  if (mode === 'DIRECT') ends.push({ state: answer.state, reason: answer.reason, at: answer.answeredAt })
  return ends
}

/** Every accepted message comes to its device, or ends in a state that says why not. */
function lost(index: StoryIndex): string[] {
  return index.accepted
    .filter((message) => !index.isDelivered(message) && endsOf(index, message).length === 0)
    .map((message) => `${name(message)} was accepted and is lost: no handler has seen it, no router has ended it`)
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
    .filter((message) => !index.isDelivered(message) && endsOf(index, message).some(({ state }) => deliveredStates.has(state)))
    .map((message) => `${name(message)} counts as acknowledged, but no handler has seen it`)
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
    return endsOf(index, message)
      .filter((end) => !isRight(end))
      .map(
        ({ state, reason, at }) =>
          `${name(message)} ended ${state} (${reason || 'no reason'}) after ${Math.round(at - message.answer.acceptTime)} ms, which nothing in this run explains`,
      )
  })
}

/** Offline and unreachable are excuses only where the device itself knows of a moment without a session. */
function dropsWithoutExcuse(index: StoryIndex, noticeMs: number): string[] {
  const isExcuse = ({ state, reason }: End) => state === 'DROPPED' && (reason === 'OFFLINE' || reason === 'UNREACHABLE')
  return index.accepted.flatMap((message) => {
    const { acceptTime } = message.answer
    // The answer to a direct call repeats the router's line.
    const end = endsOf(index, message).find(isExcuse)
    const device = index.deviceById.get(message.deviceId)
    if (end === undefined || !wasConnectedThroughout(device, acceptTime, end.at + noticeMs)) return []
    const afterMs = Math.round(end.at - acceptTime)
    return `${name(message)} was dropped as ${end.reason} after ${afterMs} ms, though its device had a session all the time`
  })
}

/** Whether the device had at least one open session at every moment from `from` to `to`. */
export function wasConnectedThroughout(device: DeviceLog | undefined, from: number, to: number): boolean {
  const spans = (device?.processes ?? []).flatMap(({ sessions }) => sessions)
  let coveredUntil = from
  for (const { openedAt, endedAt = Number.POSITIVE_INFINITY } of spans.sort((a, b) => a.openedAt - b.openedAt)) {
    if (openedAt > coveredUntil) break
    coveredUntil = Math.max(coveredUntil, endedAt)
  }
  return coveredUntil > to
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
    return !redelivered && settled.length === 1 && settled[0]?.attemptCount === 1
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
            violations.push(`${deviceId} has handled ${name(latest)} before ${name(message)}, which was published earlier`)
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
  const missed = index.accepted.filter((message) => !index.isDelivered(message))
  for (const message of missed) {
    const end = endsOf(index, message)[0]
    const how = end === undefined ? 'LOST' : `${end.state} ${end.reason}`.trim()
    undelivered[how] = (undelivered[how] ?? 0) + 1
  }
  return {
    accepted: index.accepted.length,
    refused: index.story.published.filter(({ failure }) => failure !== undefined).length,
    delivered: index.accepted.length - missed.length,
    undelivered,
    ordered: outOfOrder(index).compared,
  }
}

function name({ key, deviceId, mode, priority, ttlMs, answer }: Accepted): string {
  return `${mode} ${priority} message ${key} (${answer.messageId}, ttl ${ttlMs} ms) for ${deviceId}`
}
