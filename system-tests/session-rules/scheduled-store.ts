import { AsyncLocalStorage } from 'node:async_hooks'
import type { SessionRow, SessionRowKey, SessionStore } from '../../registry/session-store.ts'
import { storeUnavailable } from '../../registry/stores.ts'
import type { Scheduler } from './scheduler.ts'

/** One call at a registry, as the store's steps need to know it. */
export interface Caller {
  /** For the trace. */
  readonly name: string
  readonly call: 'register' | 'unregister' | 'lookup'
  /** Whose rows it writes, or reads in order to remove them. */
  readonly sessionIds: readonly string[]
  /** The edge has been told what came of it. */
  heard: boolean
  /** The newest epoch that its first read has shown. */
  newestRead?: number
}

/** What the steps leave to be judged at the end. Moments are counted in things that happened. */
export interface StoreHistory {
  /** Inserts that have reached the store, by row: the call that sent it, and when it first came. */
  readonly inserts: Map<string, { readonly by: Caller; readonly at: number }>
  /** When each Unregister first read the rows that it was to remove. */
  readonly removalReads: Map<Caller, number>
  /** Rows that a Register has deleted. */
  readonly registerDeletes: string[]
  /** Rows that a Register has put below one that it had read. */
  readonly lowInserts: string[]
}

/** Tells whose step it is, however many promises lie between. */
export const callers = new AsyncLocalStorage<Caller>()

export const rowName = ({ epoch, sessionId }: Pick<SessionRow, 'epoch' | 'sessionId'>) => `${epoch}/${sessionId}`

/** A store whose every step waits until the scheduler picks it. A write may time out and land later, or land a second time. */
export function scheduledStore(store: SessionStore, scheduler: Scheduler, history: StoreHistory): SessionStore {
  const caller = (): Caller => {
    const found = callers.getStore()
    if (found === undefined) throw new Error('a step at the store belongs to no call')
    return found
  }
  const timedOut = () => storeUnavailable(new Error('the store did not answer in time'))

  const insert = (row: SessionRow, ttlSeconds: number, by: Caller): Promise<void> => {
    const name = rowName(row)
    if (!history.inserts.has(name)) history.inserts.set(name, { by, at: scheduler.trace.length })
    return store.insert(row, ttlSeconds)
  }

  return {
    ...store,
    read(deviceId, limit) {
      const by = caller()
      return new Promise((resolve, reject) => {
        scheduler.offer({
          name: `${by.name} reads`,
          sort: 'must',
          run() {
            if (by.call === 'unregister' && !history.removalReads.has(by)) history.removalReads.set(by, scheduler.trace.length)
            void store
              .read(deviceId, limit)
              .then((partition) => {
                by.newestRead ??= partition.rows[0]?.epoch ?? 0
                return partition
              })
              .then(resolve, reject)
          },
          faults: { 'the store does not answer': () => reject(timedOut()) },
        })
      })
    },
    insert(row, ttlSeconds) {
      const by = caller()
      if (row.epoch <= (by.newestRead ?? 0)) history.lowInserts.push(rowName(row))
      const name = `${by.name} inserts ${row.epoch % 1e9}`
      const later = (what: string) =>
        scheduler.offer({ name: `${name} ${what}`, sort: 'must', run: () => void insert(row, ttlSeconds, by) })
      return new Promise((resolve, reject) => {
        const carryOut = () => void insert(row, ttlSeconds, by).then(resolve, reject)
        scheduler.offer({
          name,
          sort: 'must',
          run: carryOut,
          faults: {
            'times out, may land later'() {
              later('late')
              reject(timedOut())
            },
            'will land again'() {
              later('again')
              carryOut()
            },
          },
        })
      })
    },
    delete(key: SessionRowKey) {
      const by = caller()
      const name = `${by.name} deletes ${key.epoch % 1e9}`
      if (by.call === 'register') history.registerDeletes.push(rowName(key))
      return new Promise((resolve, reject) => {
        scheduler.offer({
          name,
          sort: 'must',
          run: () => void store.delete(key).then(resolve, reject),
          faults: {
            'times out, may land later'() {
              scheduler.offer({ name: `${name} late`, sort: 'must', run: () => void store.delete(key) })
              reject(timedOut())
            },
          },
        })
      })
    },
  }
}
