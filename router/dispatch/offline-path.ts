import { InboxReadyResult } from '../../gen/push/internal/v1/edge.ts'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { SessionRow } from '../../gen/push/internal/v1/registry.ts'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import type { EdgeDirectory } from './edge-directory.ts'
import type { EdgeLinks } from './edge-links.ts'
import type { Inbox } from './inbox.ts'
import type { PokeAnswer } from './link.ts'
import type { Lookups } from './lookups.ts'
import type { StateRecorder } from './state-recorder.ts'
import { usableRow } from './usable-route.ts'

/** How a message ended on the offline path. */
export interface OfflineEnd {
  readonly state: MessageState
  readonly reason: StateReason
}

/**
 * Where messages go that their device cannot have now: the one place where "store" happens, for messages from the queue and for direct ones alike.
 */
export interface OfflinePath {
  /**
   * Takes a message with time to live above 0 off dispatch's hands: stores it, **then** looks whether the device has a session, and tells that
   * session. In this order, because a session that registers meanwhile reads the hint after it has inserted its row: either it sees the hint, or
   * its row is seen here. `reason` says why the message could not be delivered; `patience` when the message must be let go, with
   * its poke owed. Throws REGISTRY_UNAVAILABLE: nothing is known of the message then, and the call is to be repeated.
   */
  store(message: QueuedMessage, deviceId: string, reason: StateReason, patience: Patience): Promise<OfflineEnd>
}

/** How long a stored message may wait for a session to take its poke. */
export interface Patience {
  /** Until then, on the monotonic clock. */
  readonly untilMs: number
  /** Whether it may wait, or wait on, for an edge that does not answer. */
  mayBeStuck(): boolean
}

/** What the offline path needs. */
export interface OfflinePathOptions {
  readonly inbox: Inbox
  readonly recorder: StateRecorder
  readonly lookups: Lookups
  readonly links: EdgeLinks
  readonly directory: EdgeDirectory
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** How long a session may take to answer a poke, in ms. */
  readonly pokeTimeoutMs: number
}

/** Creates the offline path. */
export function createOfflinePath(options: OfflinePathOptions): OfflinePath {
  const { inbox, recorder, lookups, links, clock, random, log, metrics } = options
  const stored = metrics.counter('push_router_stored_total', 'Messages that went to an inbox, by what became of them', ['result'])
  const pokes = metrics.counter('push_router_pokes_total', 'Sessions told that mail waits, by answer', ['answer'])
  const unrecorded = metrics.counter(
    'push_router_evictions_unrecorded_total',
    'Evicted messages whose final receipt could not be written',
  )
  const owed = metrics.counter('push_router_pokes_owed_total', 'Messages let go while their poke was not answered')

  /** The newest row of the device whose edge is not gone; undefined when there is none. */
  async function sessionOf(deviceId: string): Promise<SessionRow | undefined> {
    const usable = async (allRows: boolean) => {
      const found = await lookups.find(deviceId, { fresh: true, allRows })
      return { row: usableRow(found.routes, options), more: found.more }
    }
    const newest = await usable(false)
    return newest.row ?? (newest.more ? (await usable(true)).row : undefined)
  }

  /** Tells the device's session, whichever that is, until one has taken the poke or none is left. */
  async function tellSession(deviceId: string, { untilMs, mayBeStuck }: Patience): Promise<void> {
    const backoff = createBackoff({ baseMs: 50, capMs: 1_000, random })
    let refused: SessionRow | undefined
    while (true) {
      const row = await sessionOf(deviceId)
      if (!row) return
      if (refused && row.sessionId === refused.sessionId && row.epoch === refused.epoch) {
        // It has said that this session is not there, and the registry still has its row: a ghost's.
        await lookups.unregister(row)
        refused = undefined
        continue
      }
      const leftMs = untilMs - clock.monotonic()
      const link = links.to(row)
      const waits = leftMs > 0 && (link.answering || mayBeStuck())
      const answer: PokeAnswer = waits ? await link.poke(row, Math.min(options.pokeTimeoutMs, leftMs)) : 'unanswered'
      pokes.inc({ answer: pokeWords[answer] ?? String(answer) })
      if (answer === InboxReadyResult.ACCEPTED) return
      refused = answer === InboxReadyResult.NOT_CONNECTED ? row : undefined
      if (clock.monotonic() >= untilMs || (answer === 'unanswered' && !mayBeStuck())) {
        if (answer === 'unanswered') {
          owed.inc()
          link.owePoke(row)
        }
        return
      }
      if (answer === 'unanswered') await clock.sleep(backoff.next())
    }
  }

  /** What had to go for the newcomer gets its final receipt. */
  async function recordEvictions(
    evictions: { entry?: { deviceId: string; message?: QueuedMessage | undefined } | undefined; replaced: boolean }[],
  ): Promise<void> {
    for (const { entry, replaced } of evictions) {
      if (!entry?.message) continue
      const state = replaced ? MessageState.REPLACED : MessageState.DROPPED
      const reason = replaced ? StateReason.UNSPECIFIED : StateReason.INBOX_FULL
      log.info('message settled', {
        message_id: entry.message.messageId,
        device_id: entry.deviceId,
        state: replaced ? 'REPLACED' : 'DROPPED',
        reason: replaced ? '' : 'INBOX_FULL',
        origin: 'inbox',
      })
      // The newcomer is stored; that the evicted one's receipt is late must not undo it. Without one the message reads as EXPIRED in the end.
      await recorder.record(entry.message, entry.deviceId, { state, reason }).catch((cause: unknown) => {
        unrecorded.inc()
        log.warn('the receipt of an evicted message could not be written', { message_id: entry.message?.messageId, cause })
      })
    }
  }

  return {
    async store(message, deviceId, reason, patience) {
      const result = await inbox.store({ deviceId, message })
      await recordEvictions(result.evictions)
      if (result.result?.$case === 'full') {
        stored.inc({ result: 'full' })
        return { state: MessageState.DROPPED, reason: StateReason.INBOX_FULL }
      }
      stored.inc({ result: 'stored' })
      await tellSession(deviceId, patience)
      return { state: MessageState.STORED, reason }
    },
  }
}

const pokeWords: Record<string, string> = {
  [InboxReadyResult.ACCEPTED]: 'accepted',
  [InboxReadyResult.NOT_CONNECTED]: 'not_connected',
  unanswered: 'unanswered',
  gone: 'gone',
}
