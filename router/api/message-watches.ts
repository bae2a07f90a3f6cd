import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import type { DeviceOutcome, WatchMessageResponse } from '../../gen/push/v1/publish.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { deviceCountOf, deviceOutcomes, expireTimeOf } from './message-state.ts'

/** What watches need. */
export interface MessageWatchesOptions {
  /** What is told when nothing was recorded in time. */
  readonly unknown: (messageId: string) => PushError
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  /** Watches at once; above it they are refused. */
  readonly countMax: number
}

/** Follows messages to their final states. */
export interface MessageWatches {
  /**
   * `read` reads the receipts of the message that the caller may see, and rejects when the registry does not answer. Gives what is known, then
   * every change, and ends when the message is final at every device that it is for. Ends with MESSAGE_UNKNOWN when nothing
   * is recorded within 60 s, with REGISTRY_UNAVAILABLE when the registry has not answered for 30 s, with RATE_EXCEEDED when too many watch,
   * and with the signal's reason.
   */
  watch(
    messageId: string,
    read: () => Promise<Receipt[]>,
    signal: AbortSignal,
  ): AsyncGenerator<WatchMessageResponse, void, undefined>
}

/** How long a message is waited for of which nothing is recorded, in ms. */
export const unknownWaitMs = 60_000
/** How long after its expiry a message to an account is waited for, whose devices are not all recorded, in µs. */
const unrecordedWaitMicros = 60_000_000
/** How long the registry may fail before a watch ends, in ms. */
export const registryFailureMaxMs = 30_000
/** Between two looks, in ms: at least `min`, and up to `base` more after a change, doubling up to `cap` while nothing changes. */
const pause = { min: 50, base: 100, cap: 2_000 }
const retryAfterMs = 1_000

/** Creates the watches of one router. */
export function createMessageWatches(options: MessageWatchesOptions): MessageWatches {
  const { unknown, clock, random, metrics, countMax } = options
  const open = metrics.gauge('push_router_watches', 'Messages being watched')
  const refused = metrics.counter('push_router_watches_refused_total', 'Watches refused because too many were open')
  let count = 0

  async function* follow(
    messageId: string,
    read: () => Promise<Receipt[]>,
    signal: AbortSignal,
  ): AsyncGenerator<WatchMessageResponse, void, undefined> {
    const told = new Map<string, string>()
    const backoff = createBackoff({ baseMs: pause.base, capMs: pause.cap, random })
    const startedAt = clock.monotonic()
    let answeredAt = startedAt
    for (;;) {
      const found = await read().catch((error: unknown) => {
        if (clock.monotonic() - answeredAt >= registryFailureMaxMs) throw error
      })
      signal.throwIfAborted()
      if (found) {
        answeredAt = clock.monotonic()
        if (found.length === 0 && answeredAt - startedAt >= unknownWaitMs) throw unknown(messageId)
        const devices = deviceOutcomes(found, clock.nowMicros())
        const expiresAt = expireTimeOf(found)
        const deviceCount = deviceCountOf(found)
        const expireTime = timestampFromMicros(expiresAt)
        for (const device of devices) {
          const words = wordsOf(device)
          if (told.get(device.deviceId) === words) continue
          told.set(device.deviceId, words)
          backoff.reset()
          yield { device, expireTime, deviceCount }
        }
        // A device of an account of which nothing is recorded when the message has expired has no end to be waited for.
        const allKnown = devices.length >= deviceCount || expiresAt + unrecordedWaitMicros <= clock.nowMicros()
        if (found.length > 0 && allKnown && devices.every(({ final }) => final)) return
      }
      await clock.sleep(pause.min + backoff.next(), signal)
    }
  }

  return {
    async *watch(messageId, read, signal) {
      if (count >= countMax) {
        refused.inc()
        throw new PushError('RATE_EXCEEDED', `${countMax} messages are watched on this router already`, {}, { retryAfterMs })
      }
      open.set(++count)
      try {
        yield* follow(messageId, read, signal)
      } finally {
        open.set(--count)
      }
    },
  }
}

/** What makes one outcome differ from the one before. */
function wordsOf({ outcome, time, final }: DeviceOutcome): string {
  return [outcome?.state, outcome?.reason, final, time?.seconds, time?.nanos].join(' ')
}
