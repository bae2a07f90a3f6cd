import { sessionsMigration } from './001-sessions.ts'
import { inboxMigration } from './002-inbox.ts'
import { takeoversMigration } from './003-takeovers.ts'

/** One step of the schema. Every statement may be run again, as a registry may end halfway. */
export interface Migration {
  /** 1, 2, 3 … without gaps. */
  readonly version: number
  readonly name: string
  statements(keyspace: string): string[]
}

/** All steps, in order. A step that has been released is never changed: later needs are later steps. */
export const migrations: readonly Migration[] = [sessionsMigration, inboxMigration, takeoversMigration]
