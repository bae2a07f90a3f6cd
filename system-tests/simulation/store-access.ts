import { type RegistryStores, storeUnavailable } from '../../registry/stores.ts'
import type { ClusterStore } from './cluster-store.ts'
import type { SimulatedProcess } from './simulated-process.ts'

/** What becomes of one step on its way to the cluster. */
export interface StepFate {
  /** Until when the cluster does nothing, ms of virtual time. */
  readonly stalledUntilMs: number
  readonly requestMs: number
  readonly answerMs: number
  /** `step`: it never happens; `answer`: nobody hears that it has. */
  readonly lost?: 'step' | 'answer'
}

/** How long a registry waits for the cluster, ms. */
const stepTimeoutMs = 2_000

/** The cluster as one registry reaches it: every step takes its time, may fail, and may happen long after it was given up. */
export function storesOf(process: SimulatedProcess, cluster: ClusterStore, fateOf: () => StepFate): RegistryStores {
  const { time } = process.world

  const step =
    <Args extends unknown[], R>(name: string, run: (...args: Args) => Promise<R>) =>
    (...args: Args): Promise<R> => {
      const { stalledUntilMs, requestMs, answerMs, lost } = fateOf()
      const told = Promise.withResolvers<R>()
      const failed = (why: string) => told.reject(storeUnavailable(new Error(`${name}: ${why}`)))
      const timer = time.after(stepTimeoutMs, process, () => failed('not answered in time'))
      const answer = (tell: () => void) => {
        time.after(answerMs, process, () => {
          timer.cancel()
          tell()
        })
      }
      if (lost === 'step') {
        answer(() => failed('unavailable'))
        return told.promise
      }
      // It goes on without whoever asked: a write that was given up, or whose registry has died, still lands.
      time.after(Math.max(requestMs, stalledUntilMs - time.now), undefined, () => {
        void run(...args).then((result) => {
          if (lost === 'answer') answer(() => failed('unavailable'))
          else answer(() => told.resolve(result))
        }, told.reject)
      })
      return told.promise
    }

  const { sessions, edges, inbox, receipts } = cluster
  const close = async () => {}
  return {
    sessions: {
      read: step('read sessions', sessions.read),
      insert: step('insert session', sessions.insert),
      delete: step('delete session', sessions.delete),
      writeAccountDevice: step('write account device', sessions.writeAccountDevice),
      readAccountDevice: step('read account device', sessions.readAccountDevice),
      deleteAccountDevice: step('delete account device', sessions.deleteAccountDevice),
      readAccountDevices: step('read account devices', sessions.readAccountDevices),
      writeTakeover: step('write takeover', sessions.writeTakeover),
      countTakeovers: step('count takeovers', sessions.countTakeovers),
      clockMicros: step('read clock', sessions.clockMicros),
      close,
    },
    edges: {
      writeLease: step('write lease', edges.writeLease),
      readAll: step('read leases', edges.readAll),
      clockMicros: step('read clock', edges.clockMicros),
      close,
    },
    inbox: {
      insert: step('insert inbox row', inbox.insert),
      writeHint: step('write hint', inbox.writeHint),
      list: step('list inbox', inbox.list),
      read: step('read inbox', inbox.read),
      readMessage: step('read message', inbox.readMessage),
      delete: step('delete inbox row', inbox.delete),
      close,
    },
    receipts: {
      insert: step('insert receipt', receipts.insert),
      read: step('read receipts', receipts.read),
      close,
    },
    close,
  }
}
