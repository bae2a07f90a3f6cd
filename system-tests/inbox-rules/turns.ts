import type { InboxStore } from '../../registry/inbox-store.ts'
import type { SessionStore } from '../../registry/session-store.ts'
import { type Clock, sleepWith } from '../../service-kit/clock.ts'
import type { Scheduler } from '../session-rules/scheduler.ts'

/** Runs a step when the scheduler picks it. */
export function inTurn<T>(scheduler: Scheduler, name: string, run: () => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    scheduler.offer({ name, sort: 'must', run: () => void run().then(resolve, reject) })
  })
}

/** A store of sessions whose every step waits for its turn. */
export function sessionStoreInTurns(store: SessionStore, scheduler: Scheduler, caller: string): SessionStore {
  return {
    ...store,
    read: (deviceId, limit) => inTurn(scheduler, `${caller} reads sessions`, () => store.read(deviceId, limit)),
    insert: (row, ttlSeconds) => inTurn(scheduler, `${caller} inserts`, () => store.insert(row, ttlSeconds)),
    delete: (key) => inTurn(scheduler, `${caller} deletes ${key.sessionId.charAt(0)}`, () => store.delete(key)),
  }
}

/** A store of inboxes whose every step waits for its turn. */
export function inboxStoreInTurns(store: InboxStore, scheduler: Scheduler): InboxStore {
  return {
    ...store,
    insert: (deviceId, row, ttl) => inTurn(scheduler, `${row.messageId} stored`, () => store.insert(deviceId, row, ttl)),
    writeHint: (deviceId, until, ttl) => inTurn(scheduler, 'hint', () => store.writeHint(deviceId, until, ttl)),
    list: (deviceId) => inTurn(scheduler, 'inbox counted', () => store.list(deviceId)),
    read: (deviceId) => inTurn(scheduler, 'inbox read', () => store.read(deviceId)),
    delete: (key) => inTurn(scheduler, `${key.messageId} removed`, () => store.delete(key)),
  }
}

/** Longer waits never end: they are for what is lost on the way, and nothing is. */
const pauseMaxMs = 5_000

/** A clock that stands still, and whose short pauses end when the scheduler says so. */
export function clockInTurns(clock: Clock, scheduler: Scheduler): Clock {
  const after: Clock['after'] = (delayMs, run) => {
    if (delayMs > pauseMaxMs) return { cancel() {} }
    return { cancel: scheduler.offer({ name: 'a pause ends', sort: 'must', run }) }
  }
  return {
    now: () => clock.now(),
    nowMicros: () => clock.nowMicros(),
    monotonic: () => clock.monotonic(),
    after,
    every() {
      throw new Error('nothing in the router is done again and again')
    },
    sleep: (delayMs, signal) => sleepWith(after, delayMs, signal),
  }
}
