import type {
  DeviceLog,
  HandledMessage,
  PublishAnswer,
  PublishedMessage,
  ReadMessage,
  ReadOutcome,
  SettledMessage,
  Story,
} from './story.ts'

/** A message that the plane has accepted, as its publisher knows it. */
export type AnsweredMessage = PublishedMessage & { readonly answer: PublishAnswer }

/** A message that the plane has accepted, for one device: of an account's message there is one for each. */
export interface Accepted extends PublishedMessage {
  readonly answer: PublishAnswer
  /**
   * Of an account's message: the device belonged to the account when the call was begun, and ever since. Of one that did so at another time nothing is
   * promised but that it sees the message only while it does. Always true of a device's own message.
   */
  readonly expected: boolean
}

/** One final word about a message: a router's line, the answer to a direct call, or what was read at the end. */
export interface End {
  readonly state: string
  readonly reason: string
  readonly at: number
}

/** A story with what the checks look up in it. */
export interface StoryIndex {
  readonly story: Story
  readonly accepted: readonly Accepted[]
  /** Calls that were answered with one id are one message. */
  readonly byId: ReadonlyMap<string, AnsweredMessage>
  readonly deviceById: ReadonlyMap<string, DeviceLog>
  /** Ids that more than one call has been answered with. */
  readonly repeatedIds: ReadonlySet<string>
  /** Routers' lines by message id. */
  readonly settledById: ReadonlyMap<string, readonly SettledMessage[]>
  readonly readById: ReadonlyMap<string, ReadMessage>
  /** When its own device's handler got it, by each process. */
  handlings(message: Accepted): readonly HandledMessage[]
}

/** The states in which a device has the message. */
export const deliveredStates: ReadonlySet<string> = new Set(['ACKNOWLEDGED', 'COMPLETED'])

export function indexOf(story: Story): StoryIndex {
  const byId = new Map<string, AnsweredMessage>()
  const repeatedIds = new Set<string>()
  for (const call of story.published) {
    if (!isAnswered(call)) continue
    const { messageId, expireTime } = call.answer
    const first = byId.get(messageId)
    if (first === undefined) byId.set(messageId, call)
    else {
      // Accepted with the first of its calls, and good for as long as the last one says.
      repeatedIds.add(messageId)
      byId.set(messageId, { ...first, answer: { ...first.answer, expireTime: Math.max(first.answer.expireTime, expireTime) } })
    }
  }
  const handledIds = new Map(
    story.devices.map((device) => [
      device.deviceId,
      Map.groupBy(
        device.processes.flatMap(({ handled }) => handled),
        ({ messageId }) => messageId,
      ),
    ]),
  )
  const settledById = Map.groupBy(story.settled, ({ messageId }) => messageId)
  const readById = new Map(story.rest?.messages.map((read) => [read.messageId, read]))
  const membersOf = new Map<string, readonly DeviceLog[]>()
  const isKnown = (deviceId: string, id: string) =>
    handledIds.get(deviceId)?.has(id) ||
    settledById.get(id)?.some((line) => line.deviceId === deviceId) ||
    readById.get(id)?.devices.some((device) => device.deviceId === deviceId)
  /** Those who must have an outcome, and those of whom something is known. */
  const addressees = (accountId: string, { sentAt, answer: { messageId } }: AnsweredMessage) => {
    const members = membersOf.get(accountId) ?? story.devices.filter((device) => hasBelonged(device, accountId))
    membersOf.set(accountId, members)
    return members
      .map((device) => ({ deviceId: device.deviceId, expected: belongsSince(device, accountId, sentAt) }))
      .filter(({ deviceId, expected }) => expected || isKnown(deviceId, messageId))
  }
  return {
    story,
    accepted: [...byId.values()].flatMap((message) =>
      message.accountId === undefined
        ? { ...message, expected: true }
        : addressees(message.accountId, message).map((addressee) => ({ ...message, ...addressee })),
    ),
    byId,
    repeatedIds,
    deviceById: new Map(story.devices.map((device) => [device.deviceId, device])),
    settledById,
    readById,
    handlings: ({ deviceId, answer }) => handledIds.get(deviceId)?.get(answer.messageId) ?? [],
  }
}

function isAnswered(message: PublishedMessage): message is AnsweredMessage {
  return message.answer !== undefined
}

/** A process of the device has logged in to the account, or tried to. */
export function hasBelonged({ processes }: DeviceLog, accountId: string): boolean {
  return processes.some((process) => process.accountId === accountId)
}

/** The device's newest session at that moment was one of the account, and no process since then has been one of another. */
export function belongsSince({ processes }: DeviceLog, accountId: string, at: number): boolean {
  const current = processes.findLastIndex(({ sessions }) => sessions.some(({ openedAt }) => openedAt <= at))
  return current >= 0 && processes.slice(current).every((process) => process.accountId === accountId)
}

/** Routers' lines about a message and its device. */
function linesOf({ settledById }: StoryIndex, { deviceId, answer }: Accepted): SettledMessage[] {
  return (settledById.get(answer.messageId) ?? []).filter((line) => line.deviceId === deviceId)
}

export function isDelivered(index: StoryIndex, message: Accepted): boolean {
  return index.handlings(message).length > 0
}

/** What was read of a message at the device that it was meant for. */
export function readingOf({ readById }: StoryIndex, { deviceId, answer }: Accepted): ReadOutcome | undefined {
  return readById.get(answer.messageId)?.devices.find((device) => device.deviceId === deviceId)
}

/** Final words. That a message was stored is none. */
export function endsOf(index: StoryIndex, message: Accepted): End[] {
  const { mode, answer } = message
  const ends = linesOf(index, message).map(({ state, reason, settledAt }) => ({ state, reason, at: settledAt }))
  if (mode === 'DIRECT') ends.push({ state: answer.state, reason: answer.reason, at: answer.answeredAt })
  const reading = readingOf(index, message)
  if (reading?.final) ends.push({ ...reading, at: index.readById.get(answer.messageId)?.readAt ?? 0 })
  return ends.filter(({ state }) => state !== 'STORED')
}

/** Moments at which a router said that the message lies in the inbox, and why. */
export function storingsOf(index: StoryIndex, message: Accepted): End[] {
  const { mode, answer } = message
  const words = linesOf(index, message).map(({ state, reason, settledAt }) => ({ state, reason, at: settledAt }))
  if (mode === 'DIRECT') words.push({ state: answer.state, reason: answer.reason, at: answer.answeredAt })
  return words.filter(({ state }) => state === 'STORED')
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

/** A message as violations name it. */
export function nameOf({ key, deviceId, accountId, mode, priority, ttlMs, answer }: AnsweredMessage): string {
  const whom = accountId === undefined ? deviceId : `${deviceId} of ${accountId}`
  return `${mode} ${priority} message ${key} (${answer.messageId}, ttl ${ttlMs} ms) for ${whom}`
}
