import type { CallContext } from 'nice-grpc-common'
import { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { MessageClass, MessageOutcome, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import {
  type DeviceOutcome,
  PublishMode,
  type PublishRequest,
  type PublishResponse,
  type PublishServiceImplementation,
} from '../../gen/push/v1/publish.ts'
import { remainingCallMs } from '../../service-kit/call-deadline.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { invalidField } from '../../service-kit/errors.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { recoveryAct } from '../audit/acts.ts'
import type { AuditLog } from '../audit/audit-log.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import type { DeviceSettlement, Settlement } from '../dispatch/settlement.ts'
import { hopTimes } from '../dispatch/state-recorder.ts'
import type { Lane, MessageQueue } from '../queue/message-queue.ts'
import type { Acceptance } from './acceptance.ts'
import type { FanOutCheck } from './fan-out.ts'
import { checkMessage } from './message-check.ts'
import type { MessageQueries } from './message-queries.ts'
import type { Permissions } from './permissions.ts'
import { createPublishStream } from './publish-stream.ts'

/** What the service needs. */
export interface PublishServiceOptions {
  readonly queue: MessageQueue
  readonly dispatcher: Dispatcher
  readonly acceptance: Acceptance
  readonly permissions: Permissions
  readonly checkFanOut: FanOutCheck
  readonly audit: Pick<AuditLog, 'decide'>
  readonly clock: Clock
  readonly metrics: Metrics
  /** Answers the calls about messages published before. */
  readonly queries: MessageQueries
  /** Items of one publish stream that are taken and not answered. */
  readonly streamInFlightMax: number
  readonly log: Log
}

/** Longest time in ms that a direct call may take, whatever its caller's deadline. */
export const directWaitMaxMs = 30_000
/** A direct message that is not finished this long before the limit, in ms, goes the offline path, so that the answer still gets through. */
const directMarginMs = 1_000

const laneByPriority = { [Priority.HIGH]: 'high', [Priority.NORMAL]: 'normal', [Priority.LOW]: 'low' } as const satisfies Record<
  number,
  Lane
>

/** The lane that a message of this priority goes through. */
export function laneOf(priority: Priority): Lane {
  return priority === Priority.UNSPECIFIED ? 'normal' : laneByPriority[priority]
}

/** Takes messages from publishers. */
export function createPublishService(options: PublishServiceOptions): PublishServiceImplementation<ServedContext> {
  const { queue, dispatcher, acceptance, audit, permissions, checkFanOut, clock, log, metrics, queries, streamInFlightMax } =
    options
  const published = metrics.counter('push_router_published_total', 'Messages taken from publishers', ['mode', 'priority'])

  async function publishQueued(queued: QueuedMessage, key: string, lane: Lane): Promise<PublishResponse> {
    await queue.publish({ lane, key, value: QueuedMessage.encode(queued).finish() })
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
    if (queued.message?.target?.$case === 'accountId') {
      return accountAnswer(queued, await dispatcher.deliverDirectToAccount(queued, waitMs, context.signal))
    }
    const settlement = await dispatcher.deliverDirect(queued, waitMs, context.signal)
    return answer(queued, settlement.state, outcomeOf(settlement))
  }

  async function publish({ message, mode }: PublishRequest, context: CallContext & ServedContext): Promise<PublishResponse> {
    if (mode !== PublishMode.UNSPECIFIED && mode !== PublishMode.QUEUED && mode !== PublishMode.DIRECT) {
      throw invalidField('mode', `has no value ${mode}`)
    }
    const checked = checkMessage(message)
    const { caller } = context
    const direct = mode === PublishMode.DIRECT
    const queued = acceptance.accept(checked, caller.principal)
    const check = () => {
      permissions.requirePublish(caller, checked)
      return checkFanOut(caller.principal, checked)
    }
    // The most dangerous class is on record before it can go anywhere.
    if (checked.message.messageClass === MessageClass.RECOVERY) await audit.decide(recoveryAct(queued), check)
    else {
      const fanOut = check()
      if (fanOut) await fanOut
    }
    const lane = laneOf(checked.message.priority)
    const nowOrNever = checked.message.ttl?.seconds === 0 && checked.message.ttl.nanos === 0
    const response = direct
      ? await publishDirect(queued, checked.lifeMs, nowOrNever, context)
      : await publishQueued(queued, checked.target.value, lane)
    published.inc({ mode: direct ? 'direct' : 'queued', priority: lane })
    return response
  }

  return {
    publish,
    publishStream: createPublishStream({ publish, inFlightMax: streamInFlightMax, log, metrics }),
    getMessage: (request, context) => queries.getMessage(request, context),
    watchMessage: (request, context) => queries.watchMessage(request, context),
    cancelMessage: (request, context) => queries.cancelMessage(request, context),
  }
}

function answer(
  queued: QueuedMessage,
  state: MessageState,
  outcome: MessageOutcome | undefined,
  devices: DeviceOutcome[] = [],
): PublishResponse {
  return {
    messageId: queued.messageId,
    acceptTime: timestampFromMicros(queued.acceptTime),
    expireTime: timestampFromMicros(queued.expireTime),
    state,
    outcome,
    devices,
  }
}

function accountAnswer(queued: QueuedMessage, ends: readonly DeviceSettlement[]): PublishResponse {
  if (ends.length === 0) {
    const state = MessageState.DROPPED
    const hops = { accepted: timestampFromMicros(queued.acceptTime) }
    return answer(queued, state, MessageOutcome.fromPartial({ state, reason: StateReason.NO_DEVICES, hops }))
  }
  const lowest = ends.reduce((least, { settlement }) => Math.min(least, settlement.state), MessageState.FAILED as number)
  return answer(queued, lowest as MessageState, undefined, ends.map(deviceOutcomeOf))
}

function deviceOutcomeOf({ deviceId, settlement, time }: DeviceSettlement): DeviceOutcome {
  const { state, reason, final } = settlement
  const reachedAt = timestampFromMicros(time)
  return {
    deviceId,
    outcome: outcomeOf(settlement),
    time: reachedAt,
    final,
    result: Buffer.alloc(0),
    recorded: [{ state, reason, time: reachedAt }],
  }
}

function outcomeOf({ state, reason, detail, edgeId, sessionId, hops }: Settlement): MessageOutcome {
  return { state, reason, detail: detail.slice(0, 1_024), edgeId, sessionId, hops: hopTimes(hops) }
}
