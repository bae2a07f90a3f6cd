import { Receipt } from '../gen/push/internal/v1/queue.ts'
import type { GetRequest, GetResponse, RecordRequest, RecordResponse } from '../gen/push/internal/v1/receipts.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { allOf, type CallScope } from './batches.ts'
import type { ReceiptRow, ReceiptStore } from './receipt-store.ts'
import { checkGet, checkRecord } from './request-checks.ts'
import type { Work, WorkLimits } from './service-limits.ts'

/** How long receipts are kept after their message has expired and its result is due. */
const keptSeconds = 86_400
/** Rows of one step at the store. */
const pageRows = 1000
/** Most devices of one message that are told, and most bytes, so that the answer stays below the 4 MiB that its caller takes. */
const devicesMax = 10_000
export const receiptBytesMax = 3 * 1024 * 1024

/** What receipts are made with. */
export interface ReceiptsOptions {
  readonly store: ReceiptStore
  readonly limits: Pick<Record<Work, WorkLimits>, 'receipts'>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** The calls of `ReceiptService`. */
export interface Receipts {
  record(request: RecordRequest, scope: CallScope): Promise<RecordResponse>
  get(request: GetRequest, scope: CallScope): Promise<GetResponse>
}

/** Keeps what became of messages: rows are only added, one for each message, device and state. Reading ranks nothing. */
export function createReceipts({ store, limits, clock, log, metrics }: ReceiptsOptions): Receipts {
  const recorded = metrics.counter('push_registry_receipts_total', 'Receipts to record, by what became of them', ['result'])
  const cut = metrics.counter('push_registry_receipts_cut_total', 'Answers that could not tell every receipt of their message')
  const undecodable = metrics.counter('push_registry_receipts_undecodable_total', 'Rows left out because they are no receipts')

  const recordOne = async (receipt: Receipt, scope: CallScope): Promise<void> => {
    const { messageId, deviceId, outcome, time, expireTime, resultDeadline } = receipt
    const row = { messageId, deviceId, state: outcome?.state ?? 0, time, receipt: Receipt.encode(receipt).finish() }
    const ended = Math.max(expireTime, resultDeadline)
    const ttlSeconds = () => Math.ceil((ended - clock.nowMicros()) / 1_000_000) + keptSeconds
    // A day after its end nobody can ask for it any more.
    if (ttlSeconds() < 1) {
      recorded.inc({ result: 'too_late' })
      return
    }
    await limits.receipts.step(scope.signal, () => store.insert(row, Math.max(1, ttlSeconds())))
    recorded.inc({ result: 'recorded' })
  }

  const readAll = async (messageId: string, scope: CallScope): Promise<ReceiptRow[]> => {
    const rows: ReceiptRow[] = []
    const devices = new Set<string>()
    let bytes = 0
    for (;;) {
      const page = await limits.receipts.step(scope.signal, () => store.read(messageId, rows.at(-1), pageRows))
      for (const row of page) {
        devices.add(row.deviceId)
        bytes += row.receipt.length
        if (devices.size > devicesMax || (bytes > receiptBytesMax && rows.length > 0)) {
          cut.inc()
          return rows
        }
        rows.push(row)
      }
      if (page.length < pageRows) return rows
    }
  }

  return {
    async record(request, scope) {
      checkRecord(request, clock.nowMicros())
      const { receipts } = request
      await limits.receipts.admit(receipts.length, () =>
        allOf(receipts, scope, (receipt) =>
          recordOne(receipt, scope).catch((error) => {
            recorded.inc({ result: 'error' })
            throw error
          }),
        ),
      )
      return {}
    },

    async get(request, scope) {
      checkGet(request)
      const { messageId } = request
      const rows = await limits.receipts.admit(1, () => readAll(messageId, scope))
      const receipts = rows.flatMap((row) => {
        try {
          return [Receipt.decode(row.receipt)]
        } catch (cause) {
          undecodable.inc()
          log.error('receipt cannot be read; left out', { message_id: messageId, device_id: row.deviceId, cause })
          return []
        }
      })
      return { receipts }
    },
  }
}
