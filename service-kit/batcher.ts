import { PushError } from './push-error.ts'

/** Gathers single items into batches. */
export interface Batcher<K, V> {
  /** Queues the item; resolves with its result. BACKLOG_FULL at once when too many wait; the batch's error when it failed. */
  run(item: K): Promise<V>
  /** Items that wait for a batch to start. */
  readonly queued: number
}

/** What a batcher does and how much of it. */
export interface BatcherOptions<K, V> {
  /** Handles a batch; its results stand in the order of its items, one each. Deadlines are its caller's business. */
  readonly runBatch: (items: K[]) => Promise<V[]>
  /** Most items a batch. */
  readonly maxBatch: number
  /** Most batches under way at once; more items then wait. */
  readonly maxInFlight: number
  /** Most items that wait; above it `run` refuses. */
  readonly maxQueued: number
}

interface Waiter<K, V> {
  readonly item: K
  readonly resolve: (value: V) => void
  readonly reject: (error: unknown) => void
}

/** What waits at the end of the event loop's turn goes out together; nothing ever lingers to fill a batch. */
export function createBatcher<K, V>(options: BatcherOptions<K, V>): Batcher<K, V> {
  const { runBatch, maxBatch, maxInFlight, maxQueued } = options
  let waiters: Waiter<K, V>[] = []
  let inFlight = 0
  let scheduled = false

  const schedule = () => {
    if (scheduled || waiters.length === 0 || inFlight >= maxInFlight) return
    scheduled = true
    setImmediate(() => {
      scheduled = false
      while (waiters.length > 0 && inFlight < maxInFlight) {
        const batch = waiters.slice(0, maxBatch)
        waiters = waiters.slice(maxBatch)
        void send(batch)
      }
    })
  }

  const send = async (batch: Waiter<K, V>[]) => {
    inFlight++
    try {
      const results = await runBatch(batch.map((waiter) => waiter.item))
      if (results.length !== batch.length) {
        throw new Error(`a batch of ${batch.length} items came back with ${results.length} results`)
      }
      // The lengths agree, so there is a result at every index.
      batch.forEach((waiter, index) => {
        waiter.resolve(results[index] as V)
      })
    } catch (error) {
      for (const waiter of batch) waiter.reject(error)
    } finally {
      inFlight--
      schedule()
    }
  }

  return {
    run(item) {
      if (waiters.length >= maxQueued) {
        return Promise.reject(new PushError('BACKLOG_FULL', `${maxQueued} requests wait already; try again later`))
      }
      return new Promise<V>((resolve, reject) => {
        waiters.push({ item, resolve, reject })
        schedule()
      })
    },
    get queued() {
      return waiters.length
    },
  }
}
