import type { Clock, Timer } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import { closeKinds } from './close-codes.ts'
import type { DeviceSession } from './device-session.ts'
import { type DrainBounds, type DrainEvent, DrainMachine, type DrainPace, type DrainState } from './drain-machine.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import type { SessionTable } from './session-table.ts'

/** How far a drain has got. */
export interface DrainProgress {
  readonly state: DrainState
  /** The process stops afterwards. */
  readonly stopping: boolean
  /** In µs since the epoch; 0 when no drain has started. */
  readonly startTime: number
  /** Sessions when it started, or later when there were more. */
  readonly startCount: number
  /** Sessions that are still here. */
  readonly sessionCount: number
  /** Of those, how many have been asked to leave. */
  readonly toldCount: number
  /** Sessions asked a second; 0 before the first one is. */
  readonly ratePerSecond: number
}

/** Sends all devices elsewhere, evenly, and lets operators change their mind. The same for SIGTERM and for an operator's call. */
export interface Drain {
  readonly progress: DrainProgress
  /** Starts it, or changes the pace of the one that runs. */
  start(pace?: DrainPace): void
  /** Takes it back; who has been asked to leave may stay. False when it cannot be taken back any more. */
  abort(): boolean
  /** Drains because the process stops. Resolves when no session is left, or their time is over. Never rejects. */
  stop(): Promise<void>
  /** Told when a session's transport is gone. */
  ended(session: DeviceSession): void
  /** Looks at nothing any more. */
  close(): void
}

/** So many are asked in one turn of the event loop: asking all in one would hold up the messages of all. */
const toldPerTurn = 64
const lookMs = 100

export function createDrain(options: {
  readonly sessions: SessionTable
  readonly bounds: DrainBounds
  /** Tells the balancer and the registry whether this edge drains. */
  readonly report: (draining: boolean) => void
  /** Whether new devices are let in. */
  readonly takeDevices: (taken: boolean) => void
  readonly clock: Clock
  readonly log: Log
  readonly metrics: EdgeMetrics
}): Drain {
  const { sessions, bounds, clock, log, metrics } = options
  const machine = new DrainMachine(bounds)
  // Those who are here and have been asked to leave.
  const told = new Set<DeviceSession>()
  const gone = Promise.withResolvers<void>()
  let queue: Iterator<DeviceSession> = sessions.all()
  let startTime = 0
  let startCount = 0
  let looking: Timer | undefined
  let telling = false

  const progress = (): DrainProgress => ({
    state: machine.state,
    stopping: machine.stopping,
    startTime,
    startCount: Math.max(startCount, sessions.size),
    sessionCount: sessions.size,
    toldCount: told.size,
    ratePerSecond: machine.ratePerSecond ?? 0,
  })

  /** One that has not been asked; those that came since the last round are in the next one. */
  const nextUntold = (): DeviceSession | undefined => {
    for (let round = 0; round < 2; round++) {
      for (let next = queue.next(); !next.done; next = queue.next()) if (!told.has(next.value)) return next.value
      queue = sessions.all()
    }
    return undefined
  }

  const tell = (session: DeviceSession, slotMs: number) => {
    told.add(session)
    metrics.drainTold.inc()
    session.leave('drain', slotMs, bounds.graceMs, closeKinds.drain)
  }

  const tellAll = async (slotsMs: readonly number[]) => {
    telling = true
    const from = clock.monotonic()
    for (const [index, slotMs] of slotsMs.entries()) {
      if (index > 0 && index % toldPerTurn === 0) await new Promise((resolve) => setImmediate(resolve))
      // Taken back meanwhile.
      if (machine.state !== 'evicting' && machine.state !== 'forcing') break
      const session = nextUntold()
      if (session === undefined) break
      tell(session, Math.max(0, slotMs - (clock.monotonic() - from)))
    }
    telling = false
  }

  const handle = (event: DrainEvent) => {
    const before = machine.state
    for (const effect of machine.handle(event, clock.monotonic())) {
      switch (effect.type) {
        case 'report':
          options.report(effect.draining)
          break
        case 'take devices':
          options.takeDevices(effect.taken)
          break
        case 'evict':
          void tellAll(effect.slotsMs)
          break
        case 'keep':
          for (const session of told) session.stay(closeKinds.drain)
          break
        case 'cut':
          for (const session of sessions.all()) session.handle({ type: 'end', kind: closeKinds.goingAway })
          break
      }
    }
    const { state } = machine
    if (state === before) return
    if (before === 'serving') {
      startTime = clock.nowMicros()
      startCount = sessions.size
      looking ??= clock.every(lookMs, look)
    }
    if (state === 'serving') told.clear()
    if (state === 'serving' || state === 'gone') {
      looking?.cancel()
      looking = undefined
    }
    metrics.drainState.dec({ state: before })
    metrics.drainState.inc({ state })
    const { sessionCount, toldCount, ratePerSecond, stopping } = progress()
    const facts = { session_count: sessionCount, told_count: toldCount, rate_per_second: ratePerSecond, stopping }
    log.info('drain state changed', { from: before, to: state, ...facts })
    if (state === 'gone') gone.resolve()
  }

  const look = () => {
    metrics.drainRate.set(machine.ratePerSecond ?? 0)
    startCount = Math.max(startCount, sessions.size)
    if (!telling) handle({ type: 'look', untold: sessions.size - told.size, present: sessions.size })
  }

  metrics.drainState.inc({ state: 'serving' })
  return {
    get progress() {
      return progress()
    },
    start(pace) {
      handle({ type: 'start', pace })
      look()
    },
    abort() {
      if (!machine.abortable) return false
      handle({ type: 'abort' })
      return true
    },
    stop() {
      handle({ type: 'stop', overMs: bounds.overMs })
      look()
      return gone.promise
    },
    ended(session) {
      told.delete(session)
      if (sessions.size === 0 && looking !== undefined) look()
    },
    close() {
      looking?.cancel()
      looking = undefined
    },
  }
}
