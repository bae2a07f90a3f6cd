import { Status } from 'nice-grpc-common'
import { type Message, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import { PublishMode, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { durationFromMs, microsFromTimestamp } from '../../service-kit/time.ts'
import type { PublishedMessage } from '../story.ts'

/** What to send. */
export interface Outgoing extends Pick<PublishedMessage, 'deviceId' | 'mode' | 'priority' | 'ttlMs'> {
  /** For the call. A direct one takes at most 30 s whatever this is. Default 20,000. */
  readonly deadlineMs?: number
}

/** What a message carries, so that a device can say which one it got and for whom it was meant. */
export interface TestPayload {
  readonly key: string
  readonly to: string
}

/** A publisher that remembers what it sent and what it was answered. */
export interface Publisher {
  /** Everything so far, in the order of the calls. */
  readonly published: readonly PublishedMessage[]
  /** Sends one message through the router with this number. Never rejects: a failure is noted. */
  publish(router: number, outgoing: Outgoing): Promise<PublishedMessage>
  close(): void
}

/** Connects to each router apart, so that a test says which one takes a message. */
export function connectPublisher(routerAddresses: readonly string[]): Publisher {
  const connections: GrpcConnection[] = routerAddresses.map((addresses) =>
    connectGrpc({ addresses, log: silentLog, clock: systemClock, reconnectCapMs: 500 }),
  )
  const clients = connections.map((connection) => connection.client(PublishServiceDefinition))
  const published: PublishedMessage[] = []

  return {
    published,
    async publish(router, { deviceId, mode, priority, ttlMs, deadlineMs = 20_000 }) {
      const client = clients[router]
      if (client === undefined) throw new Error(`there is no router ${router}`)
      const key = `m${published.length + 1}`
      const payload: TestPayload = { key, to: deviceId }
      const message: Partial<Message> = {
        target: { $case: 'deviceId', value: deviceId },
        payload: Buffer.from(JSON.stringify(payload)),
        priority: Priority[priority],
        ttl: durationFromMs(ttlMs),
      }
      const entry: PublishedMessage = { key, deviceId, mode, priority, ttlMs, sentAt: Date.now() }
      published.push(entry)
      try {
        const response = await client.publish({ message, mode: PublishMode[mode] }, { deadlineMs })
        entry.answer = {
          answeredAt: Date.now(),
          messageId: response.messageId,
          acceptTime: microsFromTimestamp(response.acceptTime ?? missing('accept_time')) / 1_000,
          expireTime: microsFromTimestamp(response.expireTime ?? missing('expire_time')) / 1_000,
          state: nameOf(MessageState, response.state),
          reason: nameOf(StateReason, response.outcome?.reason ?? StateReason.UNSPECIFIED),
        }
      } catch (error) {
        const { status, reason, message } = callErrorOf(error)
        entry.failure = `${Status[status]} ${reason ?? '(no reason)'}: ${message}`
      }
      return entry
    },
    close() {
      for (const connection of connections) connection.close()
    },
  }
}

function missing(field: string): never {
  throw new Error(`the answer has no ${field}`)
}

function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  const name = Object.entries(values).find(([, number]) => number === value)?.[0] ?? String(value)
  return name === 'UNSPECIFIED' ? '' : name
}
