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

/** A message that the plane has accepted. */
export type Accepted = PublishedMessage & { readonly answer: PublishAnswer }

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
  readonly byId: ReadonlyMap<string, Accepted>
  readonly deviceById: ReadonlyMap<string, DeviceLog>
  /** Routers' lines by message id. */
  readonly settledById: ReadonlyMap<string, readonly SettledMessage[]>
  readonly readById: ReadonlyMap<string, ReadMessage>
  /** When its own device's handler got it, by each process. */
  handlings(message: Accepted): readonly HandledMessage[]
}

/** The states in which a device has the message. */
export const deliveredStates: ReadonlySet<string> = new Set(['ACKNOWLEDGED', 'COMPLETED'])

export function indexOf(story: Story): StoryIndex {
  const accepted = story.published.filter((message): message is Accepted => message.answer !== undefined)
  const handledIds = new Map(
    story.devices.map((device) => [
      device.deviceId,
      Map.groupBy(
        device.processes.flatMap(({ handled }) => handled),
        ({ messageId }) => messageId,
      ),
    ]),
  )
  return {
    story,
    accepted,
    byId: new Map(accepted.map((message) => [message.answer.messageId, message])),
    deviceById: new Map(story.devices.map((device) => [device.deviceId, device])),
    settledById: Map.groupBy(story.settled, ({ messageId }) => messageId),
    readById: new Map(story.rest?.messages.map((read) => [read.messageId, read])),
    handlings: ({ deviceId, answer }) => handledIds.get(deviceId)?.get(answer.messageId) ?? [],
  }
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
  const settled = index.settledById.get(answer.messageId) ?? []
  const ends = settled.map(({ state, reason, settledAt }) => ({ state, reason, at: settledAt }))
  if (mode === 'DIRECT') ends.push({ state: answer.state, reason: answer.reason, at: answer.answeredAt })
  const reading = readingOf(index, message)
  if (reading?.final) ends.push({ ...reading, at: index.readById.get(answer.messageId)?.readAt ?? 0 })
  return ends.filter(({ state }) => state !== 'STORED')
}

/** Moments at which a router said that the message lies in the inbox, and why. */
export function storingsOf(index: StoryIndex, message: Accepted): End[] {
  const { mode, answer } = message
  const settled = index.settledById.get(answer.messageId) ?? []
  const words = settled.map(({ state, reason, settledAt }) => ({ state, reason, at: settledAt }))
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
export function nameOf({ key, deviceId, mode, priority, ttlMs, answer }: Accepted): string {
  return `${mode} ${priority} message ${key} (${answer.messageId}, ttl ${ttlMs} ms) for ${deviceId}`
}
