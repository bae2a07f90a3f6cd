import type { DeviceSession } from '../../edge/device-session.ts'
import type { FlushCalls } from '../../edge/flush-calls.ts'
import type { InboxStore } from '../../registry/inbox-store.ts'
import type { SessionStore } from '../../registry/session-store.ts'
import { openSqliteDatabase, type SqliteDatabase } from '../../registry/sqlite/database.ts'
import { createSqliteInboxStore } from '../../registry/sqlite/inbox-store.ts'
import { createSqliteSessionStore } from '../../registry/sqlite/session-store.ts'
import type { Lookups } from '../../router/dispatch/lookups.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'

/** A rule broken on purpose, at a seam of the code that keeps it. */
export interface Breakage {
  /** Takes the place of the store behind the inbox; each step of the one given waits for its turn. */
  readonly inboxStore?: (store: InboxStore) => InboxStore
  /** Takes the place of the store behind one Register. */
  readonly registerStore?: (store: SessionStore) => SessionStore
  /** Takes the place of what the offline path looks sessions up with. */
  readonly offlineLookups?: (lookups: Lookups) => Lookups
  /** What becomes of a poke for a session that is there; as it should be, when undefined. `taken`: the session has it. Both are answered at once. */
  readonly poke?: (session: DeviceSession) => 'taken' | 'forgotten' | undefined
  /** Takes the place of an edge's calls of FlushInbox. */
  readonly flushCalls?: (calls: FlushCalls) => FlushCalls
}

/** Who takes part. */
export interface Cast {
  /** The edge of each session; sessions are called A, B, C. */
  readonly edges: readonly string[]
  /** Messages are called M, N. */
  readonly messages: number
  /** What happens first, whatever the schedule: brings them where much can go wrong. */
  readonly prologue?: readonly string[]
}

/** A message is stored, and its hint is to follow; A, which has seen none, is open. */
export const openBeforeHint: readonly string[] = [
  ...['M published', 'the router reads sessions', 'M stored'],
  ...['A connects', 'A reads sessions', 'A inserts', 'A reads sessions', 'A told registered'],
]

/** What is kept from run to run; each run has a device of its own. */
export interface Ground {
  readonly database: SqliteDatabase
  readonly sessions: SessionStore
  readonly inbox: InboxStore
  /** Everybody's clock. It stands still: no time-out and no repetition may be needed for what is judged. */
  readonly clock: SteeredClock
  nextDevice(): string
}

export function openGround(): Ground {
  const clock = new SteeredClock()
  const database = openSqliteDatabase(':memory:', createMetrics())
  let devices = 0
  return {
    database,
    sessions: createSqliteSessionStore(database, clock),
    inbox: createSqliteInboxStore(database, clock),
    clock,
    nextDevice: () => `device-${++devices}`,
  }
}

/** A has read once and is about to insert its row; a message is stored, and its hint is to follow. */
export const insertBeforeHint: readonly string[] = [
  ...['A connects', 'A reads sessions'],
  ...['M published', 'the router reads sessions', 'M stored'],
]
