import { OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { QueuedMessage, Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../../gen/push/internal/v1/receipts.ts'
import type { LateAnswer } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { microsFromTimestamp } from '../../service-kit/time.ts'
import type { Inbox } from './inbox.ts'
import type { Receipts } from './receipts.ts'
import type { StateRecorder } from './state-recorder.ts'

/** Takes devices' answers that no flight waits for: to messages that were stored or finished meanwhile, or sent by another router. */
export interface LateAnswers {
  /**
   * Removes the message from the device's inbox and records the state. An answer to a message that was not meant for this device, or of which nothing
   * is known any more, is counted and changes nothing. Throws REGISTRY_UNAVAILABLE: to be repeated.
   */
  take(answer: LateAnswer): Promise<void>
  /** The same for an answer that came on an open stream: tried until it is taken, or for a minute. Above the bound it is counted and let go: the next flush hears it again. */
  takeSoon(answer: LateAnswer): void
}

/** What late answers need. */
export interface LateAnswersOptions {
  readonly registry: GrpcConnection
  readonly inbox: Inbox
  readonly receipts: Receipts
  readonly recorder: StateRecorder
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  readonly callDeadlineMs: number
}

/** Answers from open streams that are being taken. */
const takingMax = 10_000
/** How long one of them is tried, in ms. */
const takeForMs = 60_000

/** What is known of the message at the device: from a receipt, or from its entry in the inbox. */
type Known = { readonly receipt: Receipt } | { readonly message: QueuedMessage }

/** Creates the taker. It owns nothing that must be closed. */
export function createLateAnswers(options: LateAnswersOptions): LateAnswers {
  const { registry, inbox, receipts, recorder, clock, random, log, metrics, callDeadlineMs } = options
  const client = registry.client(ReceiptServiceDefinition)
  const taken = metrics.counter('push_router_late_answers_total', 'Answers that no flight waited for, by what became of them', [
    'result',
  ])

  /** The device's newest receipt of the message; or, where none is kept, the entry that waits in its inbox. */
  async function find(deviceId: string, messageId: string): Promise<Known | undefined> {
    try {
      const found = await client.get({ messageId }, { deadlineMs: callDeadlineMs })
      const receipt = found.receipts.findLast((candidate) => candidate.deviceId === deviceId)
      if (receipt) return { receipt }
    } catch (cause) {
      throw new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer for receipts; try again', {}, { cause })
    }
    const waiting = await inbox.read(deviceId)
    const entry = [...waiting.entries, ...waiting.replaced].find(({ message }) => message?.messageId === messageId)
    return entry?.message ? { message: entry.message } : undefined
  }

  let taking = 0

  async function keepTaking(answer: LateAnswer): Promise<void> {
    const backoff = createBackoff({ baseMs: 100, capMs: 5_000, random })
    const until = clock.monotonic() + takeForMs
    while (true) {
      try {
        return await take(answer)
      } catch (cause) {
        if (clock.monotonic() >= until) {
          taken.inc({ result: 'given_up' })
          log.warn('a late answer could not be recorded', { message_id: answer.messageId, device_id: answer.deviceId, cause })
          return
        }
        await clock.sleep(backoff.next())
      }
    }
  }

  async function take(answer: LateAnswer): Promise<void> {
    const { deviceId, messageId } = answer
    const known = isAnswerKind(answer.kind) ? await find(deviceId, messageId) : undefined
    const reached = known && stateOf(answer, wantedOf(known))
    if (!known || !reached) {
      taken.inc({ result: 'unknown' })
      return
    }
    if ('message' in known) {
      await recorder.record(known.message, deviceId, { ...reached, result: answer.result })
      await inbox.remove({ deviceId, messageId, acceptTime: known.message.acceptTime })
    } else {
      const { receipt } = known
      await receipts.record({
        ...receipt,
        outcome: receipt.outcome && { ...receipt.outcome, ...reached },
        time: answer.answeredTime,
        ...(answer.result ? { result: answer.result.data } : {}),
      })
      const accepted = receipt.outcome?.hops?.accepted
      // Only what acknowledges or refuses takes the message out of the inbox; it may not lie there at all, and removing is harmless then.
      if (accepted) await inbox.remove({ deviceId, messageId, acceptTime: microsFromTimestamp(accepted) })
    }
    taken.inc({ result: 'recorded' })
    log.debug('late answer', { message_id: messageId, device_id: deviceId, state: reached.state })
  }

  return {
    take,
    takeSoon(answer) {
      if (taking >= takingMax) return taken.inc({ result: 'left_out' })
      taking++
      void keepTaking(answer).finally(() => {
        taking--
      })
    },
  }
}

function isAnswerKind(kind: OutcomeKind): boolean {
  return kind === OutcomeKind.ACKNOWLEDGED || kind === OutcomeKind.NACKED || kind === OutcomeKind.RESULT
}

function wantedOf(known: Known): ConfirmLevel {
  return 'receipt' in known ? known.receipt.confirm : (known.message.message?.confirm ?? ConfirmLevel.ACKNOWLEDGED)
}

/** A result that was not asked for acknowledges or refuses, as on an open session: the edge that reports it cannot know. */
function stateOf(
  { kind, detail, result }: LateAnswer,
  wanted: ConfirmLevel,
): { state: MessageState; reason: StateReason; detail: string } {
  const isResult = kind === OutcomeKind.RESULT
  const words = isResult ? (result?.message ?? '') : detail
  if (isResult && wanted === ConfirmLevel.RESULT) {
    return result?.ok
      ? { state: MessageState.COMPLETED, reason: StateReason.UNSPECIFIED, detail: words }
      : { state: MessageState.FAILED, reason: StateReason.RESULT_FAILED, detail: words }
  }
  return kind === OutcomeKind.ACKNOWLEDGED || (isResult && result?.ok)
    ? { state: MessageState.ACKNOWLEDGED, reason: StateReason.UNSPECIFIED, detail: words }
    : { state: MessageState.FAILED, reason: StateReason.NACKED, detail: words }
}
