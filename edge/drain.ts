import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import { closeKinds } from './close-codes.ts'
import type { SessionTable } from './session-table.ts'

/** Sends all devices elsewhere, evenly over a time. */
export interface Drain {
  /** Told when a session's transport is gone. */
  ended(): void
  /** Resolves when no session is left, or when time is over and sockets are still closing. Never rejects. */
  run(): Promise<void>
}

/** So many are told in one turn of the event loop: telling all in one would hold up the messages of all. */
const toldPerTurn = 64
/** How long after the last slot and its grace closing sockets are waited for: longer than a close handshake may take. */
const closingMs = 6_000

export function createDrain(options: {
  readonly sessions: SessionTable
  readonly drainMs: number
  readonly graceMs: number
  readonly clock: Clock
  readonly log: Log
}): Drain {
  const { sessions, drainMs, graceMs, clock, log } = options
  let emptied: (() => void) | undefined

  const tellAll = async (): Promise<void> => {
    const all = [...sessions.all()]
    const startedAt = clock.monotonic()
    for (const [index, session] of all.entries()) {
      if (index > 0 && index % toldPerTurn === 0) await new Promise((resolve) => setImmediate(resolve))
      // One that has no row yet loses nothing by coming again.
      if (!session.writes) session.handle({ type: 'end', kind: closeKinds.tryAgainLater })
      const slotMs = Math.max(0, (drainMs * (index + 1)) / all.length - (clock.monotonic() - startedAt))
      session.leave('drain', slotMs, graceMs, closeKinds.drain)
    }
  }

  return {
    ended() {
      if (sessions.size === 0) emptied?.()
    },
    async run() {
      log.info('edge drains', { session_count: sessions.size, drain_ms: drainMs })
      const empty = new Promise<void>((resolve) => {
        emptied = resolve
      })
      await tellAll()
      if (sessions.size > 0) {
        const over = new AbortController()
        const time = clock.sleep(drainMs + graceMs + closingMs, over.signal).catch(() => {})
        await Promise.race([empty, time])
        over.abort()
      }
      log.info('edge drained', { session_count: sessions.size })
    },
  }
}
