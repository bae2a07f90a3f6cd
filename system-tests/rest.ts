import { type Clock, systemClock } from '../service-kit/clock.ts'
import type { Publisher } from './plane/publisher.ts'
import { isKnownRightly } from './rest-checks.ts'
import type { DeviceLog, ReadDevice, ReadMessage, Rest } from './story.ts'
import { type Accepted, indexOf } from './story-index.ts'

/** Who is asked, and who knows better. */
export interface RestSource {
  readonly plane: { readonly routers: readonly { readonly running: boolean }[] }
  readonly publisher: Pick<Publisher, 'published' | 'read' | 'readDevice'>
  readonly fleet: { readonly logs: readonly DeviceLog[] }
}

const asksAtOnce = 32
const pauseMs = 500

/**
 * Asks the plane about every accepted message and every device. What is not in order yet is asked about again until `timeoutMs` have passed: longer
 * than anything may wait in an inbox. What is wrong then is the checker's to tell.
 */
export async function readRest(source: RestSource, timeoutMs = 90_000, clock: Clock = systemClock): Promise<Rest> {
  const { plane, publisher, fleet } = source
  const giveUpAt = clock.now() + timeoutMs
  const messages = new Map<string, ReadMessage>()
  const devices = new Map<string, ReadDevice>()
  const logs = new Map(fleet.logs.map((log) => [log.deviceId, log]))

  /** Through any router that runs; another one when it does not answer. */
  async function ask<T>(call: (router: number) => Promise<T>): Promise<T> {
    for (;;) {
      let problem: unknown = new Error('no router runs')
      for (const [index, router] of plane.routers.entries()) {
        if (!router.running) continue
        try {
          return await call(index)
        } catch (error) {
          problem = error
        }
      }
      if (clock.now() > giveUpAt) throw problem
      await clock.sleep(pauseMs)
    }
  }

  const isConnected = (deviceId: string) => openSessions(logs.get(deviceId)).length > 0
  /** A message to an account is done where all its devices are. */
  const isDone = ({ deviceId, answer, expected }: Accepted) => {
    const read = messages.get(answer.messageId)
    const found = read?.devices.find((device) => device.deviceId === deviceId)
    if (found === undefined) return read !== undefined && !expected
    return found.final || (found.state === 'STORED' && !isConnected(deviceId))
  }
  const openIds = () => {
    const { accepted, byId } = indexOf({ published: publisher.published, devices: fleet.logs, settled: [] })
    // Also where no device is known to be in the account: each message is asked about once at least.
    const unread = [...byId.keys()].filter((id) => !messages.has(id))
    return new Set([...unread, ...accepted.filter((message) => !isDone(message)).map(({ answer }) => answer.messageId)])
  }
  const isKnown = (log: DeviceLog) => {
    const read = devices.get(log.deviceId)
    const sessions = log.processes.flatMap((process) => process.sessions)
    return read !== undefined && isKnownRightly(sessions, read)
  }

  for (;;) {
    await forEach([...openIds()], async (messageId) => {
      messages.set(messageId, await ask((router) => publisher.read(router, messageId)))
    })
    await forEach(
      fleet.logs.filter((log) => !isKnown(log)),
      async ({ deviceId }) => {
        devices.set(deviceId, await ask((router) => publisher.readDevice(router, deviceId)))
      },
    )
    const done = openIds().size === 0 && fleet.logs.every(isKnown)
    if (done || clock.now() > giveUpAt) return { messages: [...messages.values()], devices: [...devices.values()] }
    await clock.sleep(pauseMs)
  }
}

function openSessions(log: DeviceLog | undefined): string[] {
  const sessions = log?.processes.flatMap((process) => process.sessions) ?? []
  return sessions.filter(({ endedAt }) => endedAt === undefined).map(({ sessionId }) => sessionId)
}

/** So many at once, in order. */
async function forEach<T>(all: readonly T[], act: (one: T) => Promise<void>): Promise<void> {
  const left = all.values()
  const work = async () => {
    for (const one of left) await act(one)
  }
  await Promise.all(Array.from({ length: asksAtOnce }, work))
}
