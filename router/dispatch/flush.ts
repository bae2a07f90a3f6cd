import type { Outcome } from '../../gen/push/internal/v1/edge.ts'
import type { InboxEntry } from '../../gen/push/internal/v1/inbox.ts'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { type FlushInboxRequest, type FlushInboxResponse, FlushResult, FlushStop } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { buildDelivery } from './delivery.ts'
import type { EdgeLinks } from './edge-links.ts'
import type { Inbox } from './inbox.ts'
import { type LeftAccounts, tellIfLeft } from './left-accounts.ts'
import { eventOf } from './outcome-events.ts'
import { type DispatchEvent, nextInboxStep } from './outcomes.ts'
import type { Hops } from './settlement.ts'
import { isGoodEnd, reasonName, stateName } from './state-names.ts'
import type { Reached, StateRecorder } from './state-recorder.ts'

/** Sends what waits in a device's inbox to one session of it. */
export interface Flushes {
  /**
   * Flushes once: says READING when the inbox has been read, then how it ended. Entries go out by priority and accept time, at most 32 at a time, and
   * are removed one by one, each at its own accept time, once they are final: what is stored meanwhile stays for the next flush.
   * Throws REGISTRY_UNAVAILABLE when the inbox cannot be read, BACKLOG_FULL when too many flushes run.
   */
  flush(request: FlushInboxRequest): AsyncGenerator<FlushInboxResponse>
}

/** What flushes need. */
export interface FlushesOptions {
  readonly inbox: Inbox
  readonly recorder: StateRecorder
  readonly links: EdgeLinks
  readonly leftAccounts: LeftAccounts
  readonly deadLetter: (entry: InboxEntry, reason: StateReason, detail: string) => Promise<void>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** How long a written message waits for its device's answer, in ms. */
  readonly ackTimeoutMs: number
  /** Flushes at once on this router. */
  readonly flushesMax: number
}

/** Entries of one flush that are sent and not final. */
const windowMax = 32

/** How long an end is tried to be kept, in ms: a registry that is busy for a moment must not cost a flush, which is repeated only seconds later. */
export const keepForMs = 5_000

/** How one entry ended in this flush. */
type EntryEnd = 'settled' | 'left' | FlushStop

/** Creates the flusher. It owns nothing that must be closed. */
export function createFlushes(options: FlushesOptions): Flushes {
  const { inbox, recorder, links, clock, random, log, metrics, ackTimeoutMs, flushesMax } = options
  const flushes = metrics.counter('push_router_flushes_total', 'Flushes of inboxes by how they ended', ['result', 'stop'])
  const running = metrics.gauge('push_router_flushes_running', 'Flushes under way')
  const entries = metrics.counter('push_router_flushed_entries_total', 'Entries of inboxes by what became of them', [
    'state',
    'reason',
  ])
  let count = 0

  /** Recorded first, then removed; tried again for a while, and then left to the next flush. Says whether it was done. */
  async function keep(message: QueuedMessage, deviceId: string, reached: Reached): Promise<boolean> {
    const backoff = createBackoff({ baseMs: 100, capMs: 1_000, random })
    const until = clock.monotonic() + keepForMs
    for (;;) {
      try {
        await recorder.record(message, deviceId, reached)
        await inbox.remove({ deviceId, messageId: message.messageId, acceptTime: message.acceptTime })
        return true
      } catch {
        if (clock.monotonic() >= until) return false
        await clock.sleep(backoff.next())
      }
    }
  }

  /** It is final. A crash between record and removal sends it again, and the device answers again. */
  async function settle(entry: InboxEntry, reached: Reached): Promise<EntryEnd> {
    const { deviceId, message } = entry
    if (!message) return 'settled'
    if (!(await keep(message, deviceId, reached))) return FlushStop.ROUTER
    tellIfLeft(options.leftAccounts, message, deviceId, reached.reason)
    const facts = { state: stateName(reached.state), reason: reasonName(reached.reason) }
    entries.inc(facts)
    const line = { message_id: message.messageId, device_id: deviceId, origin: 'inbox', edge_id: reached.edgeId ?? '', ...facts }
    if (isGoodEnd(reached.state)) log.debug('message settled', line)
    else log.info('message settled', line)
    return 'settled'
  }

  /** Sends one entry and follows it to its end in this flush. */
  function send(entry: InboxEntry, request: FlushInboxRequest): Promise<EntryEnd> {
    const { message: queued, deviceId } = entry
    const content = queued?.message
    if (!queued || !content) return Promise.resolve('settled')
    const { edgeId, edgeAddress, sessionId } = request
    const row = { deviceId, sessionId, edgeId, edgeAddress, epoch: 0, accountId: '', protocol: '', connectedTime: 0 }
    const link = links.to(row)
    const hops: Hops = { accepted: queued.acceptTime, consumed: 0, lookedUp: 0, sentToEdge: 0, written: 0, answered: 0 }
    return new Promise((resolve) => {
      let linkEntry = 0
      let over = false
      let timer = clock.after(ackTimeoutMs * 2, () => happened({ kind: 'HOLD_ENDED' }))
      const end = (how: EntryEnd | Promise<EntryEnd>) => {
        over = true
        timer.cancel()
        link.forget(linkEntry)
        resolve(how)
      }
      const happened = (event: DispatchEvent, outcome?: Outcome) => {
        if (over) return
        const step = nextInboxStep(event, content.confirm || ConfirmLevel.ACKNOWLEDGED)
        const edgeFinal = event.kind === 'WRITTEN' && event.final
        const facts = {
          detail: outcome?.detail ?? '',
          edgeId,
          sessionId: outcome?.sessionId ?? sessionId,
          hops,
          edgeFinal,
          result: outcome?.result,
        }
        switch (step.step) {
          case 'await-answer':
            timer.cancel()
            timer = clock.after(ackTimeoutMs, () => happened({ kind: 'ACK_TIMEOUT' }))
            return
          case 'remove':
            return end(settle(entry, { state: step.state, reason: step.reason, ...facts }))
          case 'dead-letter':
            return end(
              options.deadLetter(entry, step.reason, facts.detail).then(
                () => settle(entry, { state: MessageState.DEAD_LETTERED, reason: step.reason, ...facts }),
                () => FlushStop.ROUTER,
              ),
            )
          case 'leave':
            return end('left')
          case 'stop':
            return end(step.why)
        }
      }
      linkEntry = link.deliver({
        high: content.priority === Priority.HIGH,
        byteCount: content.payload.length + 512,
        wantsResult: content.confirm === ConfirmLevel.RESULT,
        build: (deliveryId) =>
          buildDelivery(queued, content, row, {
            deliveryId,
            redelivered: queued.attempt > 0,
            remainingTime: queued.expireTime - clock.nowMicros(),
          }),
        onSent() {
          hops.sentToEdge = clock.nowMicros()
        },
        onOutcome(outcome) {
          if (outcome.writtenTime > 0) hops.written = outcome.writtenTime
          if (outcome.answeredTime > 0) hops.answered = outcome.answeredTime
          happened(eventOf(outcome), outcome)
        },
        onLost: (how) => happened({ kind: how === 'unknown' ? 'UNKNOWN' : how === 'gone' ? 'EDGE_GONE' : 'UNREACHABLE' }),
      })
    })
  }

  /** Sends the entries in order, a window at a time, until all are done or one says stop. */
  async function sendAll(waiting: readonly InboxEntry[], request: FlushInboxRequest): Promise<FlushInboxResponse> {
    let stop: FlushStop = FlushStop.UNSPECIFIED
    let leftCount = 0
    let settledCount = 0
    const flying = new Set<Promise<void>>()
    for (const entry of waiting) {
      if (stop !== FlushStop.UNSPECIFIED) break
      const flight: Promise<void> = send(entry, request).then((end) => {
        flying.delete(flight)
        if (end === 'settled') settledCount++
        else if (end === 'left') leftCount++
        else if (stop === FlushStop.UNSPECIFIED) stop = end
      })
      flying.add(flight)
      if (flying.size >= windowMax) await Promise.race(flying)
    }
    await Promise.all(flying)
    const result = stop !== FlushStop.UNSPECIFIED ? FlushResult.STOPPED : leftCount > 0 ? FlushResult.WAITING : FlushResult.EMPTY
    return { result, stop, settledCount }
  }

  return {
    async *flush(request) {
      if (count >= flushesMax) {
        throw new PushError(
          'BACKLOG_FULL',
          `${flushesMax} flushes run on this router; try another one`,
          {},
          { retryAfterMs: 1_000 },
        )
      }
      count++
      running.set(count)
      try {
        const read = await inbox.read(request.deviceId)
        yield { result: FlushResult.READING, stop: FlushStop.UNSPECIFIED, settledCount: 0 }
        for (const entry of read.replaced) {
          const how = await settle(entry, { state: MessageState.REPLACED, reason: StateReason.UNSPECIFIED })
          // The next flush finds them again.
          if (how !== 'settled') break
        }
        const end = await sendAll(read.entries, request)
        flushes.inc({ result: resultNames[end.result] ?? '', stop: stopNames[end.stop] ?? '' })
        yield end
      } finally {
        count--
        running.set(count)
      }
    },
  }
}

const resultNames: Record<number, string> = {
  [FlushResult.EMPTY]: 'empty',
  [FlushResult.WAITING]: 'waiting',
  [FlushResult.STOPPED]: 'stopped',
}
const stopNames: Record<number, string> = {
  [FlushStop.SLOW_CONSUMER]: 'slow_consumer',
  [FlushStop.RATE_LIMITED]: 'rate_limited',
  [FlushStop.NOT_CONNECTED]: 'not_connected',
  [FlushStop.ROUTER]: 'router',
}
