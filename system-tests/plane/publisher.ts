import { Status } from 'nice-grpc-common'
import { DeviceServiceDefinition } from '../../gen/push/v1/devices.ts'
import { type Message, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import { PublishMode, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { type Clock, systemClock } from '../../service-kit/clock.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { durationFromMs, microsFromTimestamp } from '../../service-kit/time.ts'
import type { PublishedMessage, ReadDevice, ReadMessage } from '../story.ts'

/** What to send. */
export interface Outgoing
  extends Pick<PublishedMessage, 'deviceId' | 'accountId' | 'idempotencyKey' | 'mode' | 'priority' | 'ttlMs'> {
  /** More fields of the message. */
  readonly more?: Partial<Message>
  /** For the call. A direct one takes at most 30 s whatever this is. Default 20,000. */
  readonly deadlineMs?: number
}

/** What a message carries, so that a device can say which one it got and for whom it was meant. */
export interface TestPayload {
  readonly key: string
  /** A device, or `account/` and an account's id. */
  readonly to: string
}

/** A publisher that remembers what it sent and what it was answered. */
export interface Publisher {
  /** Everything so far, in the order of the calls. */
  readonly published: readonly PublishedMessage[]
  /** Sends one message through the router with this number. Never rejects: a failure is noted. */
  publish(router: number, outgoing: Outgoing): Promise<PublishedMessage>
  /** Publishes a message with an idempotency key once more, word for word. Never rejects. */
  repeat(router: number, message: PublishedMessage): Promise<PublishedMessage>
  /** Asks the router with this number what became of a message. Rejects when the call fails. */
  read(router: number, messageId: string): Promise<ReadMessage>
  /** Asks it where a device is. Rejects when the call fails. */
  readDevice(router: number, deviceId: string): Promise<ReadDevice>
  close(): void
}

const readDeadlineMs = 5_000
const callDeadlineMs = 20_000

/** Connects to each router apart, so that a test says which one takes a message. */
export function connectPublisher(routerAddresses: readonly string[], clock: Clock = systemClock): Publisher {
  const connections: GrpcConnection[] = routerAddresses.map((addresses) =>
    connectGrpc({ addresses, log: silentLog, clock, reconnectCapMs: 500 }),
  )
  const clients = connections.map((connection) => connection.client(PublishServiceDefinition))
  const deviceClients = connections.map((connection) => connection.client(DeviceServiceDefinition))
  const published: PublishedMessage[] = []

  async function send(
    router: number,
    entry: PublishedMessage,
    deadlineMs = callDeadlineMs,
    more: Partial<Message> = {},
  ): Promise<PublishedMessage> {
    const { key, deviceId, accountId, idempotencyKey, mode, priority, ttlMs } = entry
    const payload: TestPayload = { key, to: accountId === undefined ? deviceId : `account/${accountId}` }
    const message: Partial<Message> = {
      target: accountId === undefined ? { $case: 'deviceId', value: deviceId } : { $case: 'accountId', value: accountId },
      ...(idempotencyKey !== undefined && { idempotencyKey }),
      payload: Buffer.from(JSON.stringify(payload)),
      priority: Priority[priority],
      ttl: durationFromMs(ttlMs),
      ...more,
    }
    published.push(entry)
    try {
      const response = await nth(clients, router).publish({ message, mode: PublishMode[mode] }, { deadlineMs })
      entry.answer = {
        answeredAt: clock.now(),
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
  }

  return {
    published,
    publish: (router, { deadlineMs, more, ...outgoing }) =>
      send(router, { ...outgoing, key: `m${published.length + 1}`, sentAt: clock.now() }, deadlineMs, more),
    repeat(router, { answer, failure, ...message }) {
      if (message.idempotencyKey === undefined) throw new Error(`${message.key} has no idempotency key`)
      return send(router, { ...message, sentAt: clock.now() })
    },
    async read(router, messageId) {
      const readAt = clock.now()
      const answer = await nth(clients, router)
        .getMessage({ messageId }, { deadlineMs: readDeadlineMs })
        .catch((error: unknown) => {
          if (callErrorOf(error).reason === 'MESSAGE_UNKNOWN') return { devices: [] }
          throw error
        })
      const devices = answer.devices.map(({ deviceId, outcome, final }) => ({
        deviceId,
        state: nameOf(MessageState, outcome?.state ?? MessageState.UNSPECIFIED),
        reason: nameOf(StateReason, outcome?.reason ?? StateReason.UNSPECIFIED),
        final,
      }))
      return { messageId, readAt, devices }
    },
    async readDevice(router, deviceId) {
      const readAt = clock.now()
      const device = await nth(deviceClients, router)
        .getDevice({ deviceId }, { deadlineMs: readDeadlineMs })
        .then((answer) => answer.device)
        .catch((error: unknown) => {
          if (callErrorOf(error).reason === 'DEVICE_UNKNOWN') return undefined
          throw error
        })
      return { deviceId, readAt, connected: device?.connected ?? false, sessionId: device?.sessionId ?? '' }
    },
    close() {
      for (const connection of connections) connection.close()
    },
  }
}

function nth<T>(all: readonly T[], router: number): T {
  const one = all[router]
  if (one === undefined) throw new Error(`there is no router ${router}`)
  return one
}

function missing(field: string): never {
  throw new Error(`the answer has no ${field}`)
}

function nameOf(values: Readonly<Record<string, number>>, value: number): string {
  const name = Object.entries(values).find(([, number]) => number === value)?.[0] ?? String(value)
  return name === 'UNSPECIFIED' ? '' : name
}
