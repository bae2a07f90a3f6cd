import type { SessionRow, SessionStore } from '../../registry/session-store.ts'
import type { Breakage, Cast } from './setting.ts'
import type { Finding } from './verdict.ts'

/** A rule, broken, and by what it must be noticed. */
export interface BrokenRule {
  readonly breakage: Breakage
  readonly cast: Cast
  readonly finding: Finding
}

const twoAttempts: Cast = { edges: ['x', 'y'], attemptsMax: 2 }
const oneAttempt: Cast = { edges: ['x', 'y'], attemptsMax: 1 }

/** Each rule of the sessions, broken alone. What the property does not notice here it would not notice in the code either. */
export const brokenRules: Readonly<Record<string, BrokenRule>> = {
  'Register does not read again': {
    breakage: {
      registry: (store, create) => ({
        ...create(store),
        register: (request, scope) => create(readingOnce(store)).register(request, scope),
      }),
    },
    cast: oneAttempt,
    finding: 'two sessions are open and nobody was told',
  },
  'Register deletes the rows that it replaces, and its own when it is superseded': {
    breakage: {
      registry: (store, create) => ({
        ...create(store),
        async register(request, scope) {
          const own: SessionRow[] = []
          const insert: SessionStore['insert'] = (row, ttlSeconds) => {
            own.push(row)
            return store.insert(row, ttlSeconds)
          }
          const response = await create({ ...store, insert }).register(request, scope)
          for (const { result } of response.results) {
            if (result?.$case === 'registered') for (const row of result.value.replacedSessions) await store.delete(row)
            if (result?.$case === 'superseded') for (const row of own) await store.delete(row)
          }
          return response
        },
      }),
    },
    cast: twoAttempts,
    finding: 'the open session has no row',
  },
  'a close for a session that is still registering is forgotten': {
    breakage: { close: (close, registering) => (registering ? undefined : close) },
    cast: oneAttempt,
    finding: 'two sessions are open and nobody was told',
  },
  'sessions are compared by their epochs alone': {
    // Of equal epochs the replacer then never counts as the newer.
    breakage: { close: (close) => ({ ...close, replacerSessionId: '-' }) },
    cast: oneAttempt,
    finding: 'two sessions are open and nobody was told',
  },
  'an edge leaves the rows of a session that has ended': {
    breakage: { rowsStay: true },
    cast: oneAttempt,
    finding: 'a row was left behind',
  },
  'a delete leaves nothing that a late insert would meet': {
    breakage: {
      store: ({ store, database }) => ({
        ...store,
        delete: ({ deviceId, epoch, sessionId }) =>
          database.write(() => {
            database.connection
              .prepare('DELETE FROM device_sessions WHERE device_id = ? AND epoch = ? AND session_id = ?')
              .run(deviceId, epoch, sessionId)
          }),
      }),
    },
    cast: oneAttempt,
    finding: 'a row was left behind',
  },
  'a delete is stamped with the time by the slower clock': {
    breakage: {
      // A row from the faster clock is newer than that, and stays.
      store: ({ store, clock }) => ({
        ...store,
        delete: (key) => (key.epoch > clock.nowMicros() ? Promise.resolve() : store.delete(key)),
      }),
    },
    cast: oneAttempt,
    finding: 'a row was left behind',
  },
}

/** Answers a call's second read from its first one and what the call itself has written. */
export function readingOnce(store: SessionStore): SessionStore {
  let known: ReturnType<SessionStore['read']> | undefined
  return {
    ...store,
    read(deviceId, limit) {
      known ??= store.read(deviceId, limit)
      return known
    },
    async insert(row, ttlSeconds) {
      await store.insert(row, ttlSeconds)
      known = known?.then((before) => ({ ...before, rows: [row, ...before.rows] }))
    },
  }
}
