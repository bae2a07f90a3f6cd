import { type Clock, systemClock } from '../service-kit/clock.ts'
import type { Publisher } from './plane/publisher.ts'
import { isKnownRightly } from './rest-checks.ts'
import type { DeviceLog, PublishedMessage, ReadDevice, ReadMessage, Rest } from './story.ts'

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
export async function readRest(source: RestSource, timeoutMs = 40_000, clock: Clock = systemClock): Promise<Rest> {
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
  const isDone = ({ deviceId, answer }: PublishedMessage) => {
    const found = answer && messages.get(answer.messageId)?.devices.find((device) => device.deviceId === deviceId)
    return found !== undefined && (found.final || (found.state === 'STORED' && !isConnected(deviceId)))
  }
  const isKnown = (log: DeviceLog) => {
    const read = devices.get(log.deviceId)
    const sessions = log.processes.flatMap((process) => process.sessions)
    return read !== undefined && isKnownRightly(sessions, read)
  }

  for (;;) {
    const openMessages = publisher.published.filter((message) => message.answer !== undefined && !isDone(message))
    await forEach(openMessages, async ({ answer }) => {
      if (answer === undefined) return
      messages.set(answer.messageId, await ask((router) => publisher.read(router, answer.messageId)))
    })
    await forEach(
      fleet.logs.filter((log) => !isKnown(log)),
      async ({ deviceId }) => {
        devices.set(deviceId, await ask((router) => publisher.readDevice(router, deviceId)))
      },
    )
    const done =
      publisher.published.every((message) => message.answer === undefined || isDone(message)) && fleet.logs.every(isKnown)
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
