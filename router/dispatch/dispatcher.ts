import type { InboxEntry } from '../../gen/push/internal/v1/inbox.ts'
import { DeadLetter, QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import {
  type Lane,
  lanes,
  type MessageQueue,
  type PartitionLease,
  type QueueConsumer,
  type QueueRecord,
} from '../queue/message-queue.ts'
import { AccountFlight } from './account-flight.ts'
import { createDirectCalls, type DirectCalls, type DirectLimits } from './direct-calls.ts'
import type { EdgeDirectory } from './edge-directory.ts'
import type { EdgeLinks } from './edge-links.ts'
import { Flight, type FlightContext } from './flight.ts'
import { type Boarding, Lanes } from './lanes.ts'
import type { LateAnswers } from './late-answers.ts'
import { type LeftAccounts, tellIfLeft } from './left-accounts.ts'
import type { Lookups } from './lookups.ts'
import type { OfflinePath } from './offline-path.ts'
import type { Origin } from './outcomes.ts'
import { readQueuedRecord } from './queued-record.ts'
import type { RouteCache } from './route-cache.ts'
import type { Settlement } from './settlement.ts'
import { isGoodEnd, reasonName, stateName } from './state-names.ts'
import type { StateRecorder } from './state-recorder.ts'
import { createStuckPlaces } from './stuck-places.ts'

/** Bounds of dispatch. */
export interface DispatchLimits extends DirectLimits {
  /** Longest time in ms that a message may hold its place in the queue. Stands still while the registry does not answer. */
  readonly holdTimeMs: number
  /** How long a written message waits for its device's answer, in ms. */
  readonly ackTimeoutMs: number
  /** Messages from the queue in flight at once, in each lane. */
  readonly inFlightMax: number
}

/** What dispatch needs. */
export interface DispatcherOptions {
  readonly queue: Pick<MessageQueue, 'publishDeadLetter'>
  /** The topic's name of a lane, for dead letters. */
  readonly topicOf: (lane: Lane) => string
  readonly cache: RouteCache
  readonly lookups: Lookups
  readonly links: EdgeLinks
  readonly directory: EdgeDirectory
  readonly offlinePath: OfflinePath
  readonly recorder: StateRecorder
  readonly lateAnswers: LateAnswers
  readonly leftAccounts: LeftAccounts
  readonly limits: DispatchLimits
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** Decides every message's fate, from the queue and from direct calls alike. */
export interface Dispatcher extends QueueConsumer {
  readonly deliverDirect: DirectCalls['deliver']
  readonly deliverDirectToAccount: DirectCalls['deliverToAccount']
  /** Puts a message that can be delivered to nobody where operators see it; for what does not come from the queue. Rejects when that is not durable. */
  deadLetter(entry: InboxEntry, reason: StateReason, detail: string): Promise<void>
  /** Takes no new direct messages, and resolves when nothing is in flight or after `graceMs`. */
  settle(graceMs: number): Promise<void>
}

/** However many edges there are, each link may have so many unanswered deliveries. */
const linkCapMin = 64

const accountDeviceBuckets = [0, 1, 2, 5, 10, 20, 50, 100, 1_000, 10_000]

/** Creates the dispatcher. It starts nothing by itself: the queue hands it records, publishers call it. */
export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { queue, topicOf, limits, clock, log, metrics } = options
  const settled = metrics.counter(
    'push_router_messages_settled_total',
    'Messages that need no next step, by origin, state and reason',
    ['origin', 'state', 'reason'],
  )
  const deadLetters = metrics.counter('push_router_dead_letters_total', 'Records put on the dead-letter topic by reason', [
    'reason',
  ])
  const accountDevices = metrics.histogram(
    'push_router_account_devices',
    'Devices that a message to an account was for',
    accountDeviceBuckets,
  )
  const registryState = metrics.gauge('push_router_registry_failing', '1 while the registry does not answer look-ups')
  const stuckPlacesFor = createStuckPlaces({ someEdgeAnswers: () => options.links.someAnswers(), metrics })
  const laneStuckPlaces = new Map(lanes.map((lane) => [lane, stuckPlacesFor(lane, limits.inFlightMax)]))
  let registryFailing = false
  const settleWaiters = new Set<() => void>()

  const context: FlightContext = {
    ...options,
    ackTimeoutMs: limits.ackTimeoutMs,
    // All lanes together may have this much in flight; no one edge may hold more than its share four times over.
    linkCap: () =>
      Math.max(linkCapMin, Math.ceil((4 * limits.inFlightMax * lanes.length) / Math.max(1, options.directory.liveCount()))),
    registryFails(fails) {
      if (fails === registryFailing) return
      registryFailing = fails
      registryState.set(fails ? 1 : 0)
      if (fails) log.warn('the registry does not answer; consuming pauses')
      else log.info('the registry answers again; consuming goes on')
      flow.hold(fails)
    },
    deadLetter: (flight, reason, detail) => {
      const place = flow.placeOf(flight)
      return putDeadLetter(
        flight.deviceId,
        place,
        reason,
        detail,
        QueuedMessage.encode(flight.message).finish(),
        flight.message.messageId,
      )
    },
  }
  const flow = new Lanes({ inFlightMax: limits.inFlightMax, metrics })
  const direct = createDirectCalls({
    context,
    limits,
    stuckPlaces: stuckPlacesFor('direct', limits.directInFlightMax),
    clock,
    random: options.random,
    metrics,
    onSettled: record,
    onRefused(error) {
      settled.inc({ origin: 'direct', state: 'REFUSED', reason: error.reason })
    },
    onNoDevices: ({ messageId }, accountId) => noDevices(messageId, accountId, 'direct'),
    onLeft: wakeIfSettled,
  })

  async function putDeadLetter(
    key: string,
    origin: { lane: Lane; partition: number; offset: bigint } | undefined,
    reason: StateReason,
    detail: string,
    value: Uint8Array,
    messageId: string,
  ): Promise<void> {
    const letter = DeadLetter.fromPartial({
      originTopic: origin ? topicOf(origin.lane) : '',
      originPartition: origin?.partition ?? 0,
      originOffset: Number(origin?.offset ?? 0n),
      reason,
      detail: detail.slice(0, 1_024),
      time: clock.nowMicros(),
      value: Buffer.from(value),
      messageId,
    })
    await queue.publishDeadLetter(key, DeadLetter.encode(letter).finish())
    deadLetters.inc({ reason: reasonName(reason) })
  }

  function record(flight: Flight, { state, reason, detail, edgeId, sessionId, attemptCount }: Settlement): void {
    const facts = {
      message_id: flight.message.messageId,
      device_id: flight.deviceId,
      state: stateName(state),
      reason: reasonName(reason),
      origin: flight.origin,
      edge_id: edgeId,
      session_id: sessionId,
      attempt_count: attemptCount,
      detail,
    }
    settled.inc({ origin: flight.origin, state: facts.state, reason: facts.reason })
    if (isGoodEnd(state)) log.debug('message settled', facts)
    else log.info('message settled', facts)
    tellIfLeft(options.leftAccounts, flight.message, flight.deviceId, reason)
    wakeIfSettled()
  }

  function noDevices(messageId: string, accountId: string, origin: Origin): void {
    const facts = { state: stateName(MessageState.DROPPED), reason: reasonName(StateReason.NO_DEVICES), origin }
    settled.inc(facts)
    log.info('message settled', { message_id: messageId, account_id: accountId, ...facts })
  }

  function wakeIfSettled(): void {
    if (flow.inFlightCount + direct.count === 0) for (const wake of settleWaiters) wake()
  }

  /** Puts a record that cannot be read where operators see it; it holds its offset until that is durable. */
  async function passOver(lease: PartitionLease, queueRecord: QueueRecord, detail: string): Promise<void> {
    const { lane, partition, offset, key, value } = queueRecord
    log.warn('record cannot be read; it goes to the dead-letter topic', { lane, partition, offset: offset.toString(), detail })
    let waitMs = 100
    while (!lease.ended.aborted) {
      try {
        await putDeadLetter(key, queueRecord, StateReason.UNDECODABLE, detail, value, '')
        return flow.finish(lease, offset)
      } catch (cause) {
        log.warn('dead letter not written yet', { lane, partition, offset: offset.toString(), cause })
        await clock.sleep(waitMs, lease.ended).catch(() => undefined)
        waitMs = Math.min(waitMs * 2, 5_000)
      }
    }
  }

  function takeRecord(lease: PartitionLease, queueRecord: QueueRecord): void {
    if (!flow.receive(lease, queueRecord)) return
    const readable = readQueuedRecord(queueRecord.value)
    if (typeof readable === 'string') {
      void passOver(lease, queueRecord, readable)
      return
    }
    const { queued, content, target } = readable
    // An operator who replays a dead letter means it, though its message has been through here before.
    if (queued.attempt === 0 && flow.isRepeat(lease, queued.messageId)) return flow.finish(lease, queueRecord.offset)
    const { lane } = queueRecord
    const consumed = clock.nowMicros()
    const stuckPlaces = laneStuckPlaces.get(lane)
    if (!stuckPlaces) throw new Error(`no lane ${lane}`)
    const flightTo = (
      deviceId: string,
      onHandedOff: () => void,
      onSettled: (flight: Flight) => void,
      own?: Pick<FlightContext, 'recorder'>,
    ): Flight => {
      const flight: Flight = new Flight(
        own ? { ...context, ...own } : context,
        {
          message: queued,
          deviceId,
          origin: 'queue',
          holdTimeMs: limits.holdTimeMs,
          consumed,
          stuckPlaces,
          onStuck: () => flow.stuck(flight),
          onHandedOff,
          onSettled(settlement) {
            onSettled(flight)
            record(flight, settlement)
          },
        },
        content,
      )
      return flight
    }
    const flight: Boarding =
      target.$case === 'deviceId'
        ? flightTo(
            target.value,
            () => flow.handedOff(lane, flight),
            () => flow.settled(lane, flight),
          )
        : new AccountFlight({
            ...context,
            message: queued,
            accountId: target.value,
            sendTo(deviceId, recorder, onSettled) {
              const toDevice = flightTo(deviceId, () => flow.handedOff(lane, toDevice), onSettled, { recorder })
              flow.lineUp(lane, toDevice)
            },
            onHandedOff: () => flow.handedOff(lane, flight),
            onSettled(deviceCount) {
              if (deviceCount === 0) noDevices(queued.messageId, target.value, 'queue')
              accountDevices.observe(deviceCount)
              flow.settled(lane, flight)
              wakeIfSettled()
            },
          })
    flow.enter(lease, queueRecord.offset, flight)
  }

  return {
    onLeaseStarted: (lease) => flow.leaseStarted(lease, registryFailing),
    onLeaseEnded: (lease) => flow.leaseEnded(lease),
    onRecords(lease, records) {
      for (const queueRecord of records) takeRecord(lease, queueRecord)
    },
    deliverDirect: direct.deliver,
    deliverDirectToAccount: direct.deliverToAccount,
    async deadLetter({ deviceId, message }, reason, detail) {
      if (message)
        await putDeadLetter(deviceId, undefined, reason, detail, QueuedMessage.encode(message).finish(), message.messageId)
    },
    async settle(graceMs) {
      direct.drain()
      flow.stopStarting()
      if (flow.inFlightCount + direct.count === 0) return
      await new Promise<void>((resolve) => {
        const timer = clock.after(graceMs, () => done())
        const done = () => {
          timer.cancel()
          settleWaiters.delete(done)
          resolve()
        }
        settleWaiters.add(done)
      })
    },
  }
}
