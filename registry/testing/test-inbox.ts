import type { InboxEntry, StoreResult } from '../../gen/push/internal/v1/inbox.ts'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, Message, MessageClass, Priority, ReceiptMode } from '../../gen/push/v1/message.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics, type Metrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { createInbox, type Inbox, type InboxOptions } from '../inbox.ts'
import type { InboxStore } from '../inbox-store.ts'
import { createServiceLimits } from '../service-limits.ts'

/** A message as tests speak of it. Times are in ms after the test clock's start. */
export interface TestMessage {
  readonly id: string
  readonly acceptedMs?: number
  readonly expiresMs?: number
  readonly priority?: Priority
  readonly recovery?: boolean
  readonly collapseKey?: string
  readonly principal?: string
  readonly accountId?: string
  /** The message's class, unless it is RECOVERY. */
  readonly messageClass?: MessageClass
  readonly payloadBytes?: number
}

/** The inbox of one registry, with the calls that tests make. */
export interface TestInbox {
  readonly inbox: Inbox
  readonly metrics: Metrics
  store(deviceId: string, ...messages: TestMessage[]): Promise<StoreResult[]>
  /** Ids in the order of delivery, and those of older versions. */
  read(deviceId: string): Promise<{ entries: string[]; replaced: string[] }>
  remove(deviceId: string, id: string, acceptedMs?: number): Promise<void>
  count(deviceId: string): Promise<number>
}

const never = new AbortController().signal
/** Where the steered clock of the tests starts, in ms since 1970. */
export const startMs = 1_800_000_000_000
const microsOf = (ms: number) => (startMs + ms) * 1000

/** The message as the queue carries it. */
export function queued(test: TestMessage, deviceId: string): QueuedMessage {
  const { id, acceptedMs = 0, expiresMs = 3_600_000, priority = Priority.NORMAL, recovery = false } = test
  return {
    messageId: id,
    acceptTime: microsOf(acceptedMs),
    expireTime: microsOf(expiresMs),
    principal: test.principal ?? 'publisher-1',
    attempt: 0,
    message: Message.fromPartial({
      target:
        test.accountId === undefined ? { $case: 'deviceId', value: deviceId } : { $case: 'accountId', value: test.accountId },
      messageClass: recovery ? MessageClass.RECOVERY : (test.messageClass ?? MessageClass.USER),
      priority,
      confirm: ConfirmLevel.ACKNOWLEDGED,
      receipts: ReceiptMode.FINAL,
      collapseKey: test.collapseKey ?? '',
      contentType: 'application/json',
      payload: Buffer.alloc(test.payloadBytes ?? 10, 0x31),
    }),
  }
}

/** The inbox of a registry on a store, with its own clock. Every store is counted, unless `bounds` say otherwise. */
export function testInbox(store: InboxStore, clock: Clock, change: Partial<InboxOptions> = {}): TestInbox {
  const metrics = createMetrics()
  const inbox = createInbox({
    store,
    limits: createServiceLimits({ itemsMax: 16_384, storeStepsMax: 256, metrics }),
    bounds: { messagesMax: 100, bytesMax: 524_288 },
    countedDevicesMax: 1000,
    clock,
    random: seededRandom(1),
    log: silentLog,
    metrics,
    ...change,
  })
  const idsOf = (entries: readonly InboxEntry[]) => entries.map(({ message }) => message?.messageId ?? '')
  return {
    inbox,
    metrics,
    async store(deviceId, ...messages) {
      const entries = messages.map((message) => ({ deviceId, message: queued(message, deviceId) }))
      return (await inbox.store({ entries }, { signal: never })).results
    },
    async read(deviceId) {
      const { entries, replaced } = await inbox.read({ deviceId }, { signal: never })
      return { entries: idsOf(entries), replaced: idsOf(replaced) }
    },
    async remove(deviceId, id, acceptedMs = 0) {
      await inbox.remove({ entries: [{ deviceId, messageId: id, acceptTime: microsOf(acceptedMs) }] }, { signal: never })
    },
    async count(deviceId) {
      return (await inbox.count({ deviceId }, { signal: never })).entryCount
    },
  }
}

/** What became of each message, and what had to go for it. */
export function outcomesOf(results: readonly StoreResult[]): string[] {
  return results.map(({ result, evictions }) => {
    const gone = evictions.map(({ entry, replaced }) => `${replaced ? '~' : '-'}${entry?.message?.messageId}`)
    return [result?.$case ?? 'nothing', ...gone].join(' ')
  })
}
