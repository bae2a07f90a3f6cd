import type { InboxStore } from '../inbox-store.ts'

type Step = Exclude<keyof InboxStore, 'close'>

/** An inbox whose steps a test can hold back or let fail. */
export interface HeldInboxStore extends InboxStore {
  /** Holds the next step of this kind. */
  hold(step: Step): { readonly arrived: Promise<void>; release(): void }
  /** Makes the next step of this kind fail; `done` says whether it is carried out before. */
  fail(step: Step, error: unknown, done: boolean): void
  /** Every step so far, by name. */
  readonly steps: Step[]
}

/** Wraps a store. The wrapper's `close` leaves the store open. */
export function heldInboxStore(store: InboxStore): HeldInboxStore {
  const steps: Step[] = []
  const holds = new Map<Step, { arrived: PromiseWithResolvers<void>; released: PromiseWithResolvers<void> }>()
  const failures = new Map<Step, { error: unknown; done: boolean }>()

  const pass = async <T>(step: Step, run: () => Promise<T>): Promise<T> => {
    steps.push(step)
    const hold = holds.get(step)
    if (hold !== undefined) {
      holds.delete(step)
      hold.arrived.resolve()
      await hold.released.promise
    }
    const failure = failures.get(step)
    failures.delete(step)
    if (failure !== undefined && !failure.done) throw failure.error
    const result = await run()
    if (failure !== undefined) throw failure.error
    return result
  }

  return {
    steps,
    hold(step) {
      const hold = { arrived: Promise.withResolvers<void>(), released: Promise.withResolvers<void>() }
      holds.set(step, hold)
      return { arrived: hold.arrived.promise, release: () => hold.released.resolve() }
    },
    fail: (step, error, done) => void failures.set(step, { error, done }),
    insert: (...args) => pass('insert', () => store.insert(...args)),
    writeHint: (...args) => pass('writeHint', () => store.writeHint(...args)),
    list: (...args) => pass('list', () => store.list(...args)),
    read: (...args) => pass('read', () => store.read(...args)),
    readMessage: (...args) => pass('readMessage', () => store.readMessage(...args)),
    delete: (...args) => pass('delete', () => store.delete(...args)),
    close: async () => {},
  }
}
