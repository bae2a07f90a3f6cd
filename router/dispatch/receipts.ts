import { Status } from 'nice-grpc-common'
import { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../../gen/push/internal/v1/receipts.ts'
import { createBatcher } from '../../service-kit/batcher.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { callErrorOf, PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import { latencyBucketsSeconds, type Metrics } from '../../service-kit/metrics.ts'

/** What the writer of receipts needs. */
export interface ReceiptsOptions {
  readonly registry: GrpcConnection
  /** Puts a copy on the topic `push.receipts`: key is the message id, value an encoded `push.internal.v1.Receipt`. Unset: no copies. */
  readonly publishCopy?: (key: string, value: Uint8Array) => Promise<void>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
  /** Receipts that may wait for a call; above it `record` rejects at once. Default 100,000. */
  readonly queuedMax?: number
  /** Copies under way at once; above it copies are left out and counted. Default 10,000. */
  readonly copiesInFlightMax?: number
  /** Their bytes, so that they leave the queue's own room to messages. Default 16 MiB. */
  readonly copiesBytesMax?: number
}

/** Writes receipts. */
export interface Receipts {
  /**
   * Resolves once the receipt's row is written. Whatever is recorded in one tick goes out together. Safe to repeat.
   *
   * Rejects with REGISTRY_UNAVAILABLE when the registry does not answer, fails, or is so slow that too many wait: the row may be written all the
   * same. Rejects with INTERNAL when the registry calls this very receipt malformed: a repeat would change nothing.
   */
  record(receipt: Receipt): Promise<void>
}

/** Receipts in one call; the registry takes no more. */
const batchSizeMax = 1_000
/** Bytes of one call, below what the transport takes: results may have 48 KiB each. */
const batchBytesMax = 2 * 1024 * 1024
/** Batches under way at the same time. */
const batchesInFlightMax = 8

interface SizedReceipt {
  readonly receipt: Receipt
  readonly value: Uint8Array
}

/** Creates the writer. It owns nothing that must be closed. */
export function createReceipts(options: ReceiptsOptions): Receipts {
  const { registry, publishCopy, clock, log, metrics, callDeadlineMs } = options
  const { queuedMax = 100_000, copiesInFlightMax = 10_000, copiesBytesMax = 16 * 1024 * 1024 } = options
  const client = registry.client(ReceiptServiceDefinition)
  const recorded = metrics.counter('push_router_receipts_total', 'Receipts by what became of them', ['result'])
  const seconds = metrics.histogram('push_router_receipt_call_seconds', 'Calls that record receipts', latencyBucketsSeconds)
  const queued = metrics.gauge('push_router_receipts_queued', 'Receipts that wait for a call to the registry')
  const copies = metrics.counter('push_router_receipt_copies_total', 'Copies of receipts for consumers by what became of them', [
    'result',
  ])
  let copiesInFlight = 0
  let copiesBytes = 0
  let copiesFail = false

  /** Records what goes into one call. Returns what is wrong, for each in its place. */
  async function call(batch: readonly SizedReceipt[]): Promise<(PushError | undefined)[]> {
    const startedAt = clock.monotonic()
    try {
      await client.record({ receipts: batch.map(({ receipt }) => receipt) }, { deadlineMs: callDeadlineMs })
      return batch.map(() => undefined)
    } catch (cause) {
      if (callErrorOf(cause).status !== Status.INVALID_ARGUMENT) return batch.map(() => unavailable(cause))
      const [first] = batch
      // One malformed receipt must not keep the others of its batch from being written.
      if (batch.length > 1 || !first) return (await Promise.all(batch.map((single) => call([single])))).flat()
      const { messageId, deviceId } = first.receipt
      log.error('the registry refuses a receipt', { message_id: messageId, device_id: deviceId, cause })
      return [new PushError('INTERNAL', `the receipt of message ${messageId} is malformed`, {}, { cause })]
    } finally {
      seconds.observe((clock.monotonic() - startedAt) / 1_000)
    }
  }

  const batcher = createBatcher<SizedReceipt, PushError | undefined>({
    maxBatch: batchSizeMax,
    maxInFlight: batchesInFlightMax,
    maxQueued: queuedMax,
    async runBatch(batch) {
      queued.set(batcher.queued)
      return (await Promise.all(splitBySize(batch).map(call))).flat()
    },
  })

  async function copy({ receipt, value }: SizedReceipt): Promise<void> {
    if (!publishCopy) return
    if (copiesInFlight >= copiesInFlightMax || copiesBytes + value.length > copiesBytesMax) {
      return copies.inc({ result: 'left_out' })
    }
    copiesInFlight++
    copiesBytes += value.length
    try {
      await publishCopy(receipt.messageId, value)
      copies.inc({ result: 'sent' })
      if (copiesFail) log.info('copies of receipts are taken again')
      copiesFail = false
    } catch (cause) {
      copies.inc({ result: 'failed' })
      if (!copiesFail) log.warn('copies of receipts are not taken; consumers of them miss some', { cause })
      copiesFail = true
    } finally {
      copiesInFlight--
      copiesBytes -= value.length
    }
  }

  return {
    async record(receipt) {
      const sized = { receipt, value: Receipt.encode(receipt).finish() }
      const asked = batcher.run(sized)
      queued.set(batcher.queued)
      const problem = await asked.catch(unavailable)
      recorded.inc({ result: problem ? (problem.reason === 'INTERNAL' ? 'refused' : 'unavailable') : 'recorded' })
      if (problem) throw problem
      // The row is what counts; the copy never keeps a message from being finished.
      void copy(sized)
    },
  }
}

function unavailable(cause: unknown): PushError {
  return new PushError('REGISTRY_UNAVAILABLE', 'the registry does not take receipts; try again', {}, { cause })
}

/** Cuts a batch into pieces that the transport takes, in order. */
function splitBySize(batch: readonly SizedReceipt[]): SizedReceipt[][] {
  const pieces: SizedReceipt[][] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const sized of batch) {
    if (bytes + sized.value.length > batchBytesMax) {
      pieces.push([])
      bytes = 0
    }
    pieces.at(-1)?.push(sized)
    bytes += sized.value.length
  }
  return pieces
}
