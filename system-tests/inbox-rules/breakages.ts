import type { SessionStore } from '../../registry/session-store.ts'
import type { Finding } from './plane.ts'
import { type Breakage, type Cast, insertBeforeHint, openBeforeHint } from './setting.ts'

/** A rule, broken, and by what it must be noticed. */
export interface BrokenRule {
  readonly breakage: Breakage
  readonly cast: Cast
  readonly finding: Finding
}

const oneSession: Cast = { edges: ['x'], messages: 1 }
/** A is about to hear that it is registered. */
const registering: Cast = { ...oneSession, prologue: openBeforeHint.slice(0, -1) }
/** A is about to flush for M; N, for which there was no session when it was looked up, is to be stored. */
const flushing: Cast = {
  edges: ['x'],
  messages: 2,
  prologue: [
    ...openBeforeHint.slice(0, 3),
    ...['N published', 'the router reads sessions'],
    ...openBeforeHint.slice(3),
    ...['hint', 'the router reads sessions', 'poke to A'],
  ],
}
/** B, which is about to hear that it is registered, has been poked; A does not know of either. */
const newcomer: Cast = {
  edges: ['x', 'y'],
  messages: 1,
  prologue: [
    ...openBeforeHint,
    'B connects',
    'B reads sessions',
    'B inserts',
    'B reads sessions',
    'hint',
    'the router reads sessions',
    'poke to B',
  ],
}

/** Each rule of the inbox, broken alone. What the property does not notice here it would not notice in the code either. */
export const brokenRules: Readonly<Record<string, BrokenRule>> = {
  'the hint is written before the message': {
    breakage: {
      inboxStore: (store) => ({
        ...store,
        async insert(deviceId, row, ttlSeconds) {
          await store.writeHint(deviceId, row.expireTime, ttlSeconds)
          await store.insert(deviceId, row, ttlSeconds)
        },
        writeHint: async () => {},
      }),
    },
    cast: oneSession,
    finding: 'a hint was there before its message',
  },
  'sessions are not read again once a message is stored': {
    breakage: {
      offlineLookups: (lookups) => ({ ...lookups, find: async () => ({ routes: [], more: false, remembered: false }) }),
    },
    cast: oneSession,
    finding: 'mail waits beside an open session',
  },
  'Register reads the hint before it inserts': {
    breakage: { registerStore: rememberingHint },
    cast: { ...oneSession, prologue: insertBeforeHint },
    finding: 'mail waits beside an open session',
  },
  'a poke is answered when it arrives': {
    breakage: { poke: () => 'taken' },
    cast: newcomer,
    finding: 'mail waits beside an open session',
  },
  'a poke for a session that is still registering is forgotten': {
    breakage: { poke: (session) => (session.writes ? undefined : 'forgotten') },
    cast: registering,
    finding: 'mail waits beside an open session',
  },
  'what comes while a flush runs is forgotten when the flush ends': {
    breakage: {
      flushCalls(calls) {
        const hearing = new Set<string>()
        return {
          ...calls,
          ask(flusher) {
            const { deviceId, sessionId } = flusher
            if (hearing.has(sessionId)) return
            calls.ask({
              deviceId,
              sessionId,
              called: () => flusher.called(),
              heard(response) {
                hearing.add(sessionId)
                flusher.heard(response)
                hearing.delete(sessionId)
              },
              failed: () => flusher.failed(),
            })
          },
        }
      },
    },
    cast: flushing,
    finding: 'mail waits beside an open session',
  },
}

/** Answers a call's second read with the hint that its first one has shown. */
function rememberingHint(store: SessionStore): SessionStore {
  let known: number | undefined
  return {
    ...store,
    async read(deviceId, limit) {
      const partition = await store.read(deviceId, limit)
      known ??= partition.inboxUntil
      return { ...partition, inboxUntil: known }
    },
  }
}
