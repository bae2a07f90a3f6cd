import type { InboxReadyAnswer } from '../gen/push/internal/v1/edge.ts'
import { InboxReadyResult } from '../gen/push/internal/v1/edge.ts'
import { type FlushInboxResponse, FlushResult, FlushStop } from '../gen/push/internal/v1/uplink.ts'
import type { DeviceSession } from './device-session.ts'
import { Flush, type FlushEvent } from './flush.ts'
import type { Flusher } from './flush-calls.ts'
import type { SessionHost } from './session-host.ts'

/** A router's poke and the stream that waits for its answer. */
export interface WaitingPoke {
  readonly pokeId: number
  readonly sink: { poke(answer: InboxReadyAnswer): void }
}

/** The inbox of one session: does what its flush says. */
export class SessionInbox implements Flusher {
  readonly deviceId: string
  readonly sessionId: string
  readonly #host: SessionHost
  readonly #session: DeviceSession
  readonly #flush: Flush<WaitingPoke>

  constructor(host: SessionHost, session: DeviceSession) {
    this.#host = host
    this.#session = session
    this.deviceId = session.deviceId
    this.sessionId = session.sessionId
    this.#flush = new Flush(host.random)
    if (session.writes) this.handle({ type: 'opened' })
  }

  /** On the monotonic clock, in ms. */
  get nextDue(): number {
    return this.#flush.nextDue
  }

  handle(event: FlushEvent<WaitingPoke>): void {
    const { metrics, clock } = this.#host
    for (const effect of this.#flush.handle(event, clock.monotonic())) {
      switch (effect.type) {
        case 'call':
          this.#host.flush(this)
          break
        case 'answer':
          for (const { sink, pokeId } of effect.pokes) sink.poke({ pokeId, result: effect.result })
          metrics.pokes.inc({ result: pokeResultNames[effect.result] ?? 'unspecified' }, effect.pokes.length)
          break
        case 'drop':
          metrics.pokes.inc({ result: 'dropped' })
          break
        case 'belt found':
          metrics.beltFlushFound.inc(effect.count)
          break
      }
    }
  }

  called(): boolean {
    // One that is being closed takes no messages; its pokes are answered when it has ended.
    const wanted = this.#session.writes && this.#session.accepts
    this.handle({ type: wanted ? 'called' : 'turn lost' })
    return wanted
  }

  heard(response: FlushInboxResponse): void {
    if (response.result !== FlushResult.READING) this.#host.metrics.flushes.inc({ result: flushName(response) })
    const { hasRoom: room, refillMs } = this.#session
    this.handle({ type: 'response', response, room, refillMs, unanswered: this.#session.unanswered() })
    this.#session.rescheduled()
  }

  failed(): void {
    this.#host.metrics.flushes.inc({ result: 'failed' })
    this.handle({ type: 'failed' })
    this.#session.rescheduled()
  }
}

const pokeResultNames: Record<number, string> = {
  [InboxReadyResult.ACCEPTED]: 'accepted',
  [InboxReadyResult.NOT_CONNECTED]: 'not_connected',
}

const stopNames = new Map<FlushStop, string>([
  [FlushStop.SLOW_CONSUMER, 'slow_consumer'],
  [FlushStop.RATE_LIMITED, 'rate_limited'],
  [FlushStop.NOT_CONNECTED, 'not_connected'],
])

function flushName({ result, stop }: FlushInboxResponse): string {
  if (result === FlushResult.EMPTY) return 'empty'
  return result === FlushResult.WAITING ? 'waiting' : (stopNames.get(stop) ?? 'router')
}
