import type { SessionKey, SessionRow } from '../gen/push/internal/v1/registry.ts'
import type { LateAnswer } from '../gen/push/internal/v1/uplink.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Random } from '../service-kit/random.ts'
import type { Identity } from './auth/identity.ts'
import type { AwaitedResults } from './awaited-results.ts'
import type { CloseKind } from './close-codes.ts'
import type { DeviceSession } from './device-session.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import type { FinalAnswers } from './final-answers.ts'
import type { Flusher } from './flush-calls.ts'
import type { FrameCodec } from './frame-codec.ts'
import type { FrameRules } from './frame-limits.ts'
import type { Liveness } from './liveness.ts'
import type { OutboxBudget, OutboxLimits } from './outbox.ts'
import type { SessionOrder, TakeoverRules } from './session.ts'
import type { SessionTable } from './session-table.ts'
import type { TimerWheel } from './timer-wheel.ts'

/** What carries frames to one device. */
export interface Transport {
  /** The form of the frames that it carries. */
  readonly codec: FrameCodec
  /** False while the device does not read: what is written then piles up here. */
  readonly writable: boolean
  /** Sends one frame, as the codec has formed it. */
  write(frame: Buffer): void
  /** Asks for a sign of life. */
  ping(): void
  /** Starts to close; `detail` follows the kind's own text. Never throws; `DeviceSession.socketClosed` comes when it is done. */
  close(kind: CloseKind, detail: string): void
}

/** A connection that has been let in, before its session is made. */
export interface Carrier {
  readonly transport: Transport
  /** Has the connection tell the session what comes. To be called once, before anything else happens. */
  bind(session: DeviceSession): void
}

/** What makes one session differ from another. */
export interface SessionOptions {
  readonly deviceId: string
  readonly sessionId: string
  /** Empty for none. */
  readonly accountId: string
  readonly acknowledges: boolean
  /** When the credential expires, on the monotonic clock; Infinity when it does not. */
  readonly credentialEndsAt: number
  /** Until then a new credential may keep the session, on the monotonic clock: its client certificate ends it then. Infinity without one. */
  readonly credentialEndsAtMax: number
}

/** Times in ms, sizes in bytes. Defaults are in config.ts. What a device may send may change while the edge runs. */
export interface SessionSettings extends FrameRules, TakeoverRules {
  readonly registerTimeoutMs: number
  readonly pingIntervalMs: number
  readonly pongTimeoutMs: number
  /** The longest lifetime; a session's own is up to `lifetimeJitterMs` shorter. */
  readonly lifetimeMs: number
  readonly lifetimeJitterMs: number
  /** The slot of a session that has reached its lifetime lies within this. */
  readonly slotMaxMs: number
  /** The longest slot that any rule gives. */
  readonly longestSlotMs: number
  readonly slotGraceMs: number
  /** How long a session that is being closed may finish its outbox and pending answers. */
  readonly finishMs: number
  /** So long without progress, and the device counts as stuck. */
  readonly stuckMs: number
  /** How often what waits is looked through for expiry and for being stuck. */
  readonly sweepMs: number
  readonly outbox: OutboxLimits
  /** So long, and what waits for a device that takes nothing is given back. */
  readonly outboxAgeMs: number
  /** Deliveries to one device a second, and after a pause; undefined for any number. */
  readonly deliveryRate: { readonly perSecond: number; readonly burst: number } | undefined
  readonly messageFrameLimitBytes: number
  readonly clientFrameLimitBytes: number
  readonly pendingMax: number
  readonly invalidFramesMax: number
  /** Least time between two new credentials of one session. */
  readonly credentialRefreshMinMs: number
}

/** What all sessions of an edge share. */
export interface SessionHost {
  readonly clock: Clock
  readonly random: Random
  readonly settings: SessionSettings
  readonly metrics: EdgeMetrics
  readonly wheel: TimerWheel
  readonly liveness: Liveness
  readonly sessions: SessionTable
  /** Judges new credentials of open sessions; undefined where sessions have none that could be replaced. */
  readonly identity: Identity | undefined
  readonly finalAnswers: FinalAnswers
  readonly awaitedResults: AwaitedResults
  readonly outboxBudget: OutboxBudget
  /** Removes rows of a session that has ended. */
  unregister(key: SessionKey): void
  /** Has the sessions in these rows told that `replacer` has taken their place. */
  tellReplaced(rows: readonly SessionRow[], replacer: SessionOrder): void
  /** Two devices seem to use the identity of this session. */
  reportDuplicate(session: DeviceSession, takeovers: number): void
  /** Calls FlushInbox for it when its turn comes. */
  flush(flusher: Flusher): void
  /** Has a router told what nobody here waits for. */
  reportLate(answer: LateAnswer): void
  /** A defect of the edge has come out in what this session had begun: logs it, and ends the session. */
  failed(session: DeviceSession, cause: unknown): void
  /** The session's transport is gone. */
  ended(session: DeviceSession): void
}
