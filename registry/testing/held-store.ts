import type { SessionStore } from '../session-store.ts'

type Step = 'read' | 'insert' | 'delete'

/** A step that waits at the door of the store. */
export interface HeldStep {
  /** Resolves when the step has come. */
  readonly arrived: Promise<void>
  /** Lets it through. */
  release(): void
}

/** A store whose steps a test can hold back, and whose writes it can have carried out a second time. */
export interface HeldStore extends SessionStore {
  /** Holds the next step of this kind, after letting `skip` of them pass. */
  hold(step: Step, skip?: number): HeldStep
  /** Makes the next steps of this kind, `count` of them, fail after they were carried out: their answers are lost. */
  loseAnswers(step: Step, count: number): void
  /** Carries out all inserts so far once more, as a network may. */
  repeatInserts(): Promise<void>
  /** Every step so far, by name. */
  readonly steps: readonly Step[]
}

/** Wraps a store. The wrapper's `close` leaves the store open. */
export function heldStore(store: SessionStore): HeldStore {
  const steps: Step[] = []
  const holds: { step: Step; skip: number; arrived: PromiseWithResolvers<void>; released: PromiseWithResolvers<void> }[] = []
  const lost: Record<Step, number> = { read: 0, insert: 0, delete: 0 }
  const inserts: Parameters<SessionStore['insert']>[] = []

  const pass = async <T>(step: Step, run: () => Promise<T>): Promise<T> => {
    steps.push(step)
    const hold = holds.find((one) => one.step === step && one.skip-- === 0)
    if (hold !== undefined) {
      holds.splice(holds.indexOf(hold), 1)
      hold.arrived.resolve()
      await hold.released.promise
    }
    const result = await run()
    if (lost[step] > 0) {
      lost[step] -= 1
      throw new Error('the answer is lost')
    }
    return result
  }

  return {
    steps,
    hold(step, skip = 0) {
      const hold = { step, skip, arrived: Promise.withResolvers<void>(), released: Promise.withResolvers<void>() }
      holds.push(hold)
      return { arrived: hold.arrived.promise, release: () => hold.released.resolve() }
    },
    loseAnswers(step, count) {
      lost[step] += count
    },
    async repeatInserts() {
      for (const insert of inserts) await store.insert(...insert)
    },
    read: (deviceId, limit) => pass('read', () => store.read(deviceId, limit)),
    insert(row, ttlSeconds) {
      inserts.push([row, ttlSeconds])
      return pass('insert', () => store.insert(row, ttlSeconds))
    },
    delete: (key) => pass('delete', () => store.delete(key)),
    writeAccountDevice: store.writeAccountDevice,
    readAccountDevice: store.readAccountDevice,
    deleteAccountDevice: store.deleteAccountDevice,
    readAccountDevices: store.readAccountDevices,
    writeTakeover: store.writeTakeover,
    countTakeovers: store.countTakeovers,
    clockMicros: store.clockMicros,
    close: async () => {},
  }
}
