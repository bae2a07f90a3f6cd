import type { CloseSession } from '../../gen/push/internal/v1/edge.ts'
import type { SessionStore } from '../../registry/session-store.ts'
import type { Sessions } from '../../registry/sessions.ts'
import { openSqliteDatabase, type SqliteDatabase } from '../../registry/sqlite/database.ts'
import { createSqliteSessionStore } from '../../registry/sqlite/session-store.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'

/** A rule broken on purpose, at a seam of the code that keeps it. */
export interface Breakage {
  /** Takes the place of the store behind all registries. */
  readonly store?: (ground: Ground) => SessionStore
  /** Takes the place of a registry. */
  readonly registry?: (store: SessionStore, create: (store: SessionStore) => Sessions) => Sessions
  /** What an edge gets of a close; undefined: nothing. */
  readonly close?: (close: CloseSession, registering: boolean) => CloseSession | undefined
  /** Edges leave the rows of ended sessions where they are. */
  readonly rowsStay?: true
}

/** Who takes part. */
export interface Cast {
  /** The edge of each session; sessions are called A, B, C. */
  readonly edges: readonly string[]
  /** Attempts at registering that a session has. */
  readonly attemptsMax: number
}

/** What is kept from run to run; each run has a device of its own. */
export interface Ground {
  readonly database: SqliteDatabase
  readonly store: SessionStore
  /** The first registry's clock, and the store's. It stands still, so that epochs meet often. */
  readonly clock: Clock
  nextDevice(): string
}

export function openGround(): Ground {
  const clock = new SteeredClock()
  const database = openSqliteDatabase(':memory:', createMetrics())
  let devices = 0
  return { database, store: createSqliteSessionStore(database, clock), clock, nextDevice: () => `device-${++devices}` }
}
