import type { Clock, Timer } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { QueueMetrics } from './queue-metrics.ts'

export interface OutgoingBufferOptions<R> {
  /** Makes one batch durable, in order; called with the next batch only after this one has settled. */
  readonly send: (records: readonly R[]) => Promise<void>
  /** Bytes that a record takes in a batch. */
  readonly sizeOf: (record: R) => number
  /** Records that wait or are on their way, at most. */
  readonly recordCountMax: number
  /** Their bytes, at most. */
  readonly bytesMax: number
  /** Records of one batch, at most. */
  readonly batchCountMax: number
  /** Bytes of one batch, at most; a larger record goes alone. */
  readonly batchBytesMax: number
  /** How long a batch that is not full waits for company when another one has just been sent; an idle buffer does not wait at all. */
  readonly lingerMs: number
  readonly clock: Clock
  readonly metrics: QueueMetrics
}

/** Records on their way into the queue: what waits at the tick goes out together, one batch at a time, and there is a bound. */
export interface OutgoingBuffer<R> {
  /** Settles with the batch that the record goes out in. Rejects with BACKLOG_FULL, keeping nothing, when it would pass a bound. */
  add(record: R): Promise<void>
  /** Rejects all that waits; what is on its way is left to its batch. */
  rejectWaiting(error: Error): void
  /** Resolves when nothing waits and nothing is on its way. */
  drained(): Promise<void>
}

interface Entry<R> {
  readonly record: R
  readonly size: number
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

export function createOutgoingBuffer<R>(options: OutgoingBufferOptions<R>): OutgoingBuffer<R> {
  const { send, sizeOf, recordCountMax, bytesMax, batchCountMax, batchBytesMax, lingerMs, clock, metrics } = options
  let waiting: Entry<R>[] = []
  let waitingBytes = 0
  let count = 0
  let bytes = 0
  let sending = false
  let timer: Timer | undefined
  let tick: NodeJS.Immediate | undefined
  let idleListeners: Array<() => void> = []

  const wake = () => {
    if (sending || timer || tick) return
    tick = setImmediate(() => {
      tick = undefined
      void run()
    })
  }

  const run = async () => {
    sending = true
    while (waiting.length > 0) {
      const batch = takeBatch()
      try {
        await send(batch.map((entry) => entry.record))
        settle(batch, (entry) => entry.resolve())
      } catch (error) {
        const reason = error instanceof Error ? error : new Error(String(error))
        settle(batch, (entry) => entry.reject(reason))
      }
      if (waiting.length > 0 && waiting.length < batchCountMax && waitingBytes < batchBytesMax && lingerMs > 0) {
        timer = clock.after(lingerMs, () => {
          timer = undefined
          wake()
        })
        break
      }
    }
    sending = false
    if (count > 0) return
    const listeners = idleListeners
    idleListeners = []
    for (const listener of listeners) listener()
  }

  const takeBatch = (): Entry<R>[] => {
    let taken = 0
    let takenBytes = 0
    for (const entry of waiting) {
      if (taken === batchCountMax || (taken > 0 && takenBytes + entry.size > batchBytesMax)) break
      taken++
      takenBytes += entry.size
    }
    const batch = waiting.slice(0, taken)
    waiting = waiting.slice(taken)
    waitingBytes -= takenBytes
    return batch
  }

  const settle = (batch: readonly Entry<R>[], act: (entry: Entry<R>) => void) => {
    count -= batch.length
    for (const entry of batch) bytes -= entry.size
    metrics.backlogRecords.set(count)
    for (const entry of batch) act(entry)
  }

  return {
    add: (record) =>
      new Promise((resolve, reject) => {
        const size = sizeOf(record)
        if (count + 1 > recordCountMax || bytes + size > bytesMax) {
          metrics.backlogFull.inc()
          reject(
            new PushError(
              'BACKLOG_FULL',
              'too many messages wait for the queue; publish more slowly',
              {},
              { retryAfterMs: 1000 },
            ),
          )
          return
        }
        count++
        bytes += size
        metrics.backlogRecords.set(count)
        waiting.push({ record, size, resolve, reject })
        waitingBytes += size
        wake()
      }),
    rejectWaiting(error) {
      const rejected = waiting
      waiting = []
      waitingBytes = 0
      timer?.cancel()
      timer = undefined
      settle(rejected, (entry) => entry.reject(error))
      wake()
    },
    drained: () => (count === 0 ? Promise.resolve() : new Promise((resolve) => idleListeners.push(resolve))),
  }
}
