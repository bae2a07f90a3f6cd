import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { Message } from '../../gen/push/v1/message.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { AccountNote } from './account-note.ts'
import { Flight, type FlightContext } from './flight.ts'
import type { DeviceSettlement, Settlement } from './settlement.ts'
import type { StuckPlaces } from './stuck-places.ts'

/** What direct calls need. */
export interface DirectCallsOptions {
  readonly context: FlightContext
  readonly limits: DirectLimits
  /** Places of direct messages that may be stuck at edges that do not answer. */
  readonly stuckPlaces: StuckPlaces
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Metrics
  /** A message is settled at a device. */
  onSettled(flight: Flight, settlement: Settlement): void
  /** A message to an account that has no devices. */
  onNoDevices(message: QueuedMessage, accountId: string): void
  /** A message was refused at a device. */
  onRefused(error: PushError): void
  /** One less is counted here. */
  onLeft(): void
}

/** Bounds of direct calls. */
export interface DirectLimits {
  /** Direct messages in flight at once; one to an account counts once for each of its devices. */
  readonly directInFlightMax: number
  /** Devices that an account may have for a direct call. */
  readonly directAccountDevicesMax: number
}

/** Delivers messages whose publishers wait: `waitMs` is the time until a message must be settled, and `signal` ends the wait early. */
export interface DirectCalls {
  /**
   * Delivers one message to its device now. Resolves with what was reached in time; nothing is held afterwards.
   * Rejects with REGISTRY_UNAVAILABLE, PAYLOAD_TOO_LARGE, RATE_EXCEEDED, BACKLOG_FULL or DRAINING.
   */
  deliver(message: QueuedMessage, waitMs: number, signal?: AbortSignal): Promise<Settlement>
  /**
   * Delivers one message to every device of its account now, all at once. Resolves with what was reached at each in time, by device id; with none when
   * the account has no devices, which is then recorded. Rejects with REGISTRY_UNAVAILABLE, also when it is so of one device alone: the others have
   * the message all the same; with TOO_MANY_TARGETS, BACKLOG_FULL or DRAINING nothing was sent.
   */
  deliverToAccount(message: QueuedMessage, waitMs: number, signal?: AbortSignal): Promise<DeviceSettlement[]>
  /** Messages in flight. */
  readonly count: number
  /** Takes no more. */
  drain(): void
}

const backOffMs = { base: 50, cap: 1_000 }
const accountDeviceBuckets = [0, 1, 2, 5, 10, 20, 50, 100, 1_000]

/** Creates what delivers directly. It owns nothing that must be closed. */
export function createDirectCalls(options: DirectCallsOptions): DirectCalls {
  const { context, limits, clock, random, metrics } = options
  const { directInFlightMax, directAccountDevicesMax } = limits
  const inFlight = metrics.gauge('push_router_direct_in_flight', 'Direct messages in flight')
  const accountDevices = metrics.histogram(
    'push_router_direct_account_devices',
    'Devices that a direct message to an account was for',
    accountDeviceBuckets,
  )
  const flights = new Set<Flight>()
  /** Calls whose account is being read. */
  let readingCount = 0
  let draining = false

  function requireRoomFor(count: number): void {
    if (draining) throw new PushError('DRAINING', 'this router is shutting down; call another one')
    if (flights.size + readingCount + count <= directInFlightMax) return
    const message = `${flights.size} direct messages are in flight on this router, which takes ${directInFlightMax}`
    throw new PushError('BACKLOG_FULL', message, {}, { retryAfterMs: 200 })
  }

  function send(
    message: QueuedMessage,
    content: Message,
    deviceId: string,
    waitMs: number,
    signal: AbortSignal | undefined,
    shared?: Pick<FlightContext, 'recorder'>,
  ): Promise<Settlement> {
    return new Promise<Settlement>((resolve, reject) => {
      const endWait = () => flight.endWait()
      const leave = () => {
        flights.delete(flight)
        inFlight.set(flights.size)
        signal?.removeEventListener('abort', endWait)
        options.onLeft()
      }
      const flight: Flight = new Flight(
        shared ? { ...context, ...shared } : context,
        {
          message,
          deviceId,
          origin: 'direct',
          sharedCall: shared !== undefined,
          holdTimeMs: waitMs,
          consumed: 0,
          stuckPlaces: options.stuckPlaces,
          onHandedOff: () => undefined,
          onSettled(settlement) {
            leave()
            options.onSettled(flight, settlement)
            resolve(settlement)
          },
          onRefused(error) {
            leave()
            options.onRefused(error)
            reject(error)
          },
        },
        content,
      )
      flights.add(flight)
      inFlight.set(flights.size)
      signal?.addEventListener('abort', endWait, { once: true })
      flight.board()
      flight.start()
      if (signal?.aborted) endWait()
    })
  }

  /** Reads the account's devices, again and again until the registry answers or the time is over. */
  async function devicesOf(accountId: string, waitMs: number, signal: AbortSignal | undefined): Promise<readonly string[]> {
    const backoff = createBackoff({ baseMs: backOffMs.base, capMs: backOffMs.cap, random })
    const until = clock.monotonic() + waitMs
    while (true) {
      try {
        const page = await context.lookups.accountDevices(accountId, '')
        const devicesMax = Math.min(directAccountDevicesMax, directInFlightMax)
        if (page.deviceIds.length <= devicesMax && page.nextPageToken === '') return page.deviceIds
        throw new PushError(
          'TOO_MANY_TARGETS',
          `account ${accountId} has more than ${devicesMax} devices, too many for a direct message; publish it through the queue`,
          { account_id: accountId, device_count_max: String(devicesMax) },
        )
      } catch (cause) {
        const tooMany = cause instanceof PushError && cause.reason === 'TOO_MANY_TARGETS'
        const waitNextMs = backoff.next()
        if (tooMany || signal?.aborted || clock.monotonic() + waitNextMs >= until) throw cause
        await clock.sleep(waitNextMs, signal).catch(() => undefined)
      }
    }
  }

  return {
    async deliver(message, waitMs, signal) {
      requireRoomFor(1)
      const content = message.message
      if (content?.target?.$case !== 'deviceId') throw new Error('the message is for no device')
      return send(message, content, content.target.value, waitMs, signal)
    },
    async deliverToAccount(message, waitMs, signal) {
      const content = message.message
      if (content?.target?.$case !== 'accountId') throw new Error('the message is for no account')
      requireRoomFor(1)
      const accountId = content.target.value
      const startedAt = clock.monotonic()
      let devices: readonly string[]
      readingCount++
      try {
        devices = await devicesOf(accountId, waitMs, signal)
      } finally {
        readingCount--
        options.onLeft()
      }
      requireRoomFor(devices.length)
      accountDevices.observe(devices.length)
      const note = new AccountNote(message, devices.length, context.recorder)
      if (devices.length === 0) {
        await note.write()
        options.onNoDevices(message, accountId)
        return []
      }
      // Its devices' receipts wait for it: one that fails here is written with theirs, or the call fails with it.
      void note.write().catch(() => undefined)
      const leftMs = Math.max(1, waitMs - (clock.monotonic() - startedAt))
      const shared = { recorder: note.recorderAfter() }
      const ends = await Promise.allSettled(
        devices.map(async (deviceId): Promise<DeviceSettlement> => {
          const settlement = await send(message, content, deviceId, leftMs, signal, shared)
          return { deviceId, settlement, time: clock.nowMicros() }
        }),
      )
      return ends.map((end) => {
        if (end.status === 'rejected') throw end.reason
        return end.value
      })
    },
    get count() {
      return flights.size + readingCount
    },
    drain() {
      draining = true
    },
  }
}
