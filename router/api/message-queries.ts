import { InboxServiceDefinition } from '../../gen/push/internal/v1/inbox.ts'
import type { Receipt } from '../../gen/push/internal/v1/queue.ts'
import { ReceiptServiceDefinition } from '../../gen/push/internal/v1/receipts.ts'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import type { DeviceOutcome, PublishServiceImplementation } from '../../gen/push/v1/publish.ts'
import type { Caller } from '../../service-kit/caller.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { invalidField, PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { microsFromTimestamp, timestampFromMicros } from '../../service-kit/time.ts'
import { takeBackAct } from '../audit/acts.ts'
import type { AuditLog } from '../audit/audit-log.ts'
import type { Receipts } from '../dispatch/receipts.ts'
import { deviceCountOf, deviceOutcomes, expireTimeOf } from './message-state.ts'
import { createMessageWatches } from './message-watches.ts'
import type { Permissions } from './permissions.ts'

/** What the calls about messages need. */
export interface MessageQueriesOptions {
  readonly registry: GrpcConnection
  readonly receipts: Receipts
  readonly permissions: Permissions
  readonly audit: Pick<AuditLog, 'record'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** Deadline of one call to the registry in ms. */
  readonly callDeadlineMs: number
  /** Watches at once; above it they are refused. */
  readonly watchCountMax: number
}

/** The calls about messages that were published before; a part of `PublishService`. */
export type MessageQueries = Pick<PublishServiceImplementation<ServedContext>, 'getMessage' | 'watchMessage' | 'cancelMessage'>

/** Entries that one call to the registry removes at most. */
const removeCountMax = 1_000

const messageIdPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[78][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** Answers what became of messages, follows them and takes them back. It owns nothing that must be closed: watches end with the server. */
export function createMessageQueries(options: MessageQueriesOptions): MessageQueries {
  const { registry, receipts, permissions, audit, clock, log, metrics, callDeadlineMs } = options
  const receiptClient = registry.client(ReceiptServiceDefinition)
  const inboxClient = registry.client(InboxServiceDefinition)
  const cancelled = metrics.counter('push_router_cancelled_total', 'Messages taken back from inboxes')
  const watches = createMessageWatches({ ...options, countMax: options.watchCountMax, unknown })

  /** Of a message of somebody else there is nothing, as if it did not exist: who guesses ids learns nothing. */
  async function readReceipts(messageId: string, caller: Caller, operation: 'messages.read' | 'messages.cancel') {
    try {
      const { receipts } = await receiptClient.get({ messageId }, { deadlineMs: callDeadlineMs })
      return receipts.filter(({ principal }) => permissions.owns(caller, principal, operation))
    } catch (cause) {
      throw new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer; try again', {}, { cause })
    }
  }

  /** Removes what is stored, each entry at its own accept time, then records that. In this order a repeat finishes what was begun. */
  async function takeBack(stored: readonly Receipt[]): Promise<Receipt[]> {
    const entries = stored.map((receipt) => ({
      deviceId: receipt.deviceId,
      messageId: receipt.messageId,
      acceptTime: acceptTimeOf(receipt),
    }))
    try {
      for (let from = 0; from < entries.length; from += removeCountMax) {
        await inboxClient.remove({ entries: entries.slice(from, from + removeCountMax) }, { deadlineMs: callDeadlineMs })
      }
    } catch (cause) {
      throw new PushError(
        'REGISTRY_UNAVAILABLE',
        'the registry does not answer, so not everything is taken back; repeat',
        {},
        { cause },
      )
    }
    const taken = stored.map((receipt) => cancellationOf(receipt, clock.nowMicros()))
    await Promise.all(taken.map((receipt) => receipts.record(receipt)))
    cancelled.inc(taken.length)
    return taken
  }

  return {
    async getMessage({ messageId }, { caller }) {
      requireMessageId(messageId)
      const found = await readReceipts(messageId, caller, 'messages.read')
      if (found.length === 0) throw unknown(messageId)
      return {
        messageId,
        devices: deviceOutcomes(found, clock.nowMicros()),
        expireTime: timestampFromMicros(expireTimeOf(found)),
        deviceCount: deviceCountOf(found),
      }
    },
    watchMessage({ messageId }, context) {
      // Begins anew on another router without loss, so draining may cut it.
      context.abortOnTerminate()
      requireMessageId(messageId)
      return watches.watch(messageId, () => readReceipts(messageId, context.caller, 'messages.read'), context.signal)
    },
    async cancelMessage({ messageId }, { caller }) {
      requireMessageId(messageId)
      const found = await readReceipts(messageId, caller, 'messages.cancel')
      const now = deviceOutcomes(found, clock.nowMicros())
      const stored = now.filter(isStored).flatMap(({ deviceId }) => storedReceiptOf(found, deviceId))
      if (stored.length === 0) return { removedCount: 0, devices: now }
      // Another's message is an operator's to take back.
      if (stored.some(({ principal }) => principal !== caller.principal)) {
        await audit.record(takeBackAct(caller.principal, messageId))
      }
      const taken = await takeBack(stored)
      log.info('message taken back', { message_id: messageId, principal: caller.principal, device_count: taken.length })
      return { removedCount: taken.length, devices: deviceOutcomes([...found, ...taken], clock.nowMicros()) }
    },
  }
}

function unknown(messageId: string): PushError {
  return new PushError(
    'MESSAGE_UNKNOWN',
    `nothing is recorded of message ${messageId} that you may see: it may still be queued, be published with receipts NONE or by another publisher, or its receipts are past their time`,
    { message_id: messageId },
  )
}

function requireMessageId(messageId: string): void {
  if (messageIdPattern.test(messageId)) return
  throw invalidField('message_id', 'must be a message id as Publish answers it, such as 0197c2d4-5e6f-7a81-92b3-c4d5e6f70819')
}

function isStored({ outcome }: DeviceOutcome): boolean {
  return outcome?.state === MessageState.STORED
}

function storedReceiptOf(found: readonly Receipt[], deviceId: string): Receipt[] {
  return found.filter((one) => one.deviceId === deviceId && one.outcome?.state === MessageState.STORED).slice(0, 1)
}

function acceptTimeOf({ messageId, outcome }: Receipt): number {
  const accepted = outcome?.hops?.accepted
  if (!accepted) throw new Error(`the receipt that message ${messageId} is stored has no accept time`)
  return microsFromTimestamp(accepted)
}

function cancellationOf(stored: Receipt, time: number): Receipt {
  const { outcome } = stored
  if (!outcome) throw new Error(`the receipt of message ${stored.messageId} has no outcome`)
  return { ...stored, time, outcome: { ...outcome, state: MessageState.CANCELLED, reason: StateReason.UNSPECIFIED, detail: '' } }
}
