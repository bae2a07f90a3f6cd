import type { CallContext } from 'nice-grpc-common'
import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { type HopTimes, type MessageOutcome, MessageState, Priority } from '../../gen/push/v1/message.ts'
import {
  PublishMode,
  type PublishRequest,
  type PublishResponse,
  type PublishServiceImplementation,
} from '../../gen/push/v1/publish.ts'
import { remainingCallMs } from '../../service-kit/call-deadline.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { DrainContext } from '../../service-kit/drain-middleware.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { Hops, Settlement } from '../dispatch/settlement.ts'
import type { Lane, MessageQueue } from '../queue/message-queue.ts'
import type { Acceptance } from './acceptance.ts'
import { checkMessage, notYet } from './message-check.ts'
import type { MessageQueries } from './message-queries.ts'

/** What the service needs. */
export interface PublishServiceOptions {
  readonly queue: MessageQueue
  readonly dispatcher: Dispatcher
  readonly acceptance: Acceptance
  readonly clock: Clock
  readonly metrics: Metrics
  /** Answers the calls about messages published before. Unset: they are NOT_IMPLEMENTED. */
  readonly queries?: MessageQueries
}

/** Longest time in ms that a direct call may take, whatever its caller's deadline. */
export const directWaitMaxMs = 30_000
/** A direct message that is not finished this long before the limit, in ms, goes the offline path, so that the answer still gets through. */
const directMarginMs = 1_000

const laneByPriority = { [Priority.HIGH]: 'high', [Priority.NORMAL]: 'normal', [Priority.LOW]: 'low' } as const satisfies Record<
  number,
  Lane
>

/** Takes messages from publishers. */
export function createPublishService(options: PublishServiceOptions): PublishServiceImplementation<DrainContext> {
  const { queue, dispatcher, acceptance, clock, metrics, queries = noQueries } = options
  const published = metrics.counter('push_router_published_total', 'Messages taken from publishers', ['mode', 'priority'])
  // Until publishers have identities every one is the same principal.
  const principal = 'anonymous'

  async function publishQueued(queued: QueuedMessage, deviceId: string, lane: Lane): Promise<PublishResponse> {
    await queue.publish({ lane, key: deviceId, value: QueuedMessage.encode(queued).finish() })
    return answer(queued, MessageState.ACCEPTED, undefined)
  }

  async function publishDirect(
    queued: QueuedMessage,
    lifeMs: number,
    nowOrNever: boolean,
    context: CallContext,
  ): Promise<PublishResponse> {
    const limitMs = Math.min(remainingCallMs(context, clock.now()) ?? directWaitMaxMs, directWaitMaxMs, lifeMs)
    const waitMs = nowOrNever ? limitMs : limitMs - Math.min(directMarginMs, limitMs / 4)
    const settlement = await dispatcher.deliverDirect(queued, waitMs, context.signal)
    return answer(queued, settlement.state, settlement)
  }

  return {
    async publish({ message, mode }: PublishRequest, context) {
      if (mode !== PublishMode.UNSPECIFIED && mode !== PublishMode.QUEUED && mode !== PublishMode.DIRECT) {
        throw new PushError(
          'INVALID_REQUEST',
          `mode has no value ${mode}`,
          {},
          { violations: [{ field: 'mode', description: `has no value ${mode}` }] },
        )
      }
      const checked = checkMessage(message)
      const queued = acceptance.accept(checked, principal)
      const priority = checked.message.priority
      const lane = priority === Priority.UNSPECIFIED ? 'normal' : laneByPriority[priority]
      const direct = mode === PublishMode.DIRECT
      const nowOrNever = checked.message.ttl?.seconds === 0 && checked.message.ttl.nanos === 0
      const response = direct
        ? await publishDirect(queued, checked.lifeMs, nowOrNever, context)
        : await publishQueued(queued, checked.deviceId, lane)
      published.inc({ mode: direct ? 'direct' : 'queued', priority: lane })
      return response
    },
    // The stub of a streaming call must be a generator; it ends with the error before anything is taken.
    // biome-ignore lint/correctness/useYield: see above
    async *publishStream() {
      throw notYet('PublishStream')
    },
    getMessage: (request, context) => queries.getMessage(request, context),
    watchMessage: (request, context) => queries.watchMessage(request, context),
    cancelMessage: (request, context) => queries.cancelMessage(request, context),
  }
}

const noQueries: MessageQueries = {
  async getMessage() {
    throw notYet('GetMessage')
  },
  // biome-ignore lint/correctness/useYield: it ends with the error before anything is told
  async *watchMessage() {
    throw notYet('WatchMessage')
  },
  async cancelMessage() {
    throw notYet('CancelMessage')
  },
}

function answer(queued: QueuedMessage, state: MessageState, settlement: Settlement | undefined): PublishResponse {
  return {
    messageId: queued.messageId,
    acceptTime: timestampFromMicros(queued.acceptTime),
    expireTime: timestampFromMicros(queued.expireTime),
    state,
    outcome: settlement ? outcomeOf(settlement) : undefined,
  }
}

function outcomeOf({ state, reason, detail, edgeId, sessionId, hops }: Settlement): MessageOutcome {
  return { state, reason, detail: detail.slice(0, 1_024), edgeId, sessionId, hops: hopTimes(hops) }
}

function hopTimes(hops: Readonly<Hops>): HopTimes {
  const time = (micros: number) => (micros > 0 ? timestampFromMicros(micros) : undefined)
  return {
    accepted: time(hops.accepted),
    consumed: time(hops.consumed),
    lookedUp: time(hops.lookedUp),
    sentToEdge: time(hops.sentToEdge),
    written: time(hops.written),
    answered: time(hops.answered),
  }
}
