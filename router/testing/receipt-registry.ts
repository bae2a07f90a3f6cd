import { type InboxKey, InboxServiceDefinition } from '../../gen/push/internal/v1/inbox.ts'
import { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../../gen/push/internal/v1/receipts.ts'
import type { MessageState } from '../../gen/push/v1/message.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'

/** What tests write receipts from; times are µs. */
export interface ReceiptFacts {
  readonly deviceId?: string
  readonly state: MessageState
  readonly time?: number
  readonly acceptTime?: number
  readonly more?: Partial<Receipt>
}

/** A receipt with what every real one has. */
export function receipt(
  messageId: string,
  { deviceId = 'd', state, time = 1, acceptTime = 1, more = {} }: ReceiptFacts,
): Receipt {
  return Receipt.fromPartial({
    messageId,
    deviceId,
    outcome: { state, hops: { accepted: timestampFromMicros(acceptTime) } },
    time,
    expireTime: Number.MAX_SAFE_INTEGER,
    confirm: 2,
    ...more,
  })
}

/** A real server with a registry's services for receipts and inboxes, kept in memory, and a connection to it. */
export async function startReceiptRegistry() {
  const rows = new Map<string, Receipt[]>()
  const state = {
    /** The sizes of the batches recorded. */
    batches: [] as number[],
    removed: [] as InboxKey[],
    getCount: 0,
    /** What calls fail with. */
    fails: undefined as PushError | undefined,
    /** Only recording fails. */
    refusesRecords: false,
    /** Calls wait for it. */
    gate: Promise.resolve(),
    /** How many do. */
    waitingCount: 0,
    /** Receipts of this message are malformed. */
    malformed: '',
    add(...receipts: Receipt[]) {
      for (const row of receipts) rows.set(row.messageId, [...(rows.get(row.messageId) ?? []), row])
    },
    of: (messageId: string) => rows.get(messageId) ?? [],
  }
  const turn = async () => {
    state.waitingCount++
    await state.gate
    state.waitingCount--
    if (state.fails) throw state.fails
  }
  const notYet = async (): Promise<never> => {
    throw new PushError('NOT_IMPLEMENTED', 'this registry does not do that')
  }
  const server = await serveGrpc({
    address: '127.0.0.1:0',
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
    services(adding) {
      adding.add(ReceiptServiceDefinition, {
        async record({ receipts }) {
          await turn()
          if (state.refusesRecords) throw new PushError('REGISTRY_UNAVAILABLE', 'no records now')
          state.batches.push(receipts.length)
          if (receipts.some(({ messageId }) => messageId === state.malformed)) {
            throw new PushError('INVALID_REQUEST', 'receipts hold a malformed one')
          }
          state.add(...receipts)
          return {}
        },
        async get({ messageId }) {
          state.getCount++
          await turn()
          return { receipts: state.of(messageId) }
        },
      })
      adding.add(InboxServiceDefinition, {
        store: notYet,
        read: notYet,
        count: notYet,
        async remove({ entries }) {
          await turn()
          state.removed.push(...entries)
          return {}
        },
      })
    },
  })
  const connection = connectGrpc({ addresses: server.address, log: silentLog, clock: systemClock })
  return Object.assign(state, {
    connection,
    async stop() {
      connection.close()
      await server.drain(0)
    },
  })
}
