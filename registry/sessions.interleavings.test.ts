import fc from 'fast-check'
import { expect, test } from 'vitest'
import { shiftedClock } from '../service-kit/clock.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { compareRows, type SessionStore } from './session-store.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteSessionStore } from './sqlite/session-store.ts'
import { fullId, type TestRegistry, testRegistry } from './testing/test-registry.ts'

// One device whose sessions come and go, through two registries whose clocks are 5 µs apart and stand still, so that
// epochs meet often. Every step of every call at the store, every answer, every close waits until the test picks it.

const deviceId = 'device-1'
const sessionNames = ['A', 'B', 'C'] as const
type Name = (typeof sessionNames)[number]
type Pair = { epoch: number; sessionId: string }

/** An edge's view of one session, by the rules that edges keep. */
interface EdgeSession {
  phase: 'new' | 'registering' | 'open' | 'closed'
  epoch: number
  /** A CloseSession that came while registering: judged when the answer comes. */
  remembered: Pair | undefined
  attempts: { waited: boolean; registry: number }[]
}

class World {
  readonly #database = openSqliteDatabase(':memory:', createMetrics())
  readonly #store = createSqliteSessionStore(this.#database, new SteeredClock())
  readonly #registries: TestRegistry[]
  readonly #sessions = new Map<Name, EdgeSession>()
  #actions: { name: string; run: () => void }[] = []
  readonly trace: string[] = []

  constructor() {
    const clock = new SteeredClock()
    const gated = this.#gated()
    this.#registries = [testRegistry(gated, clock), testRegistry(gated, shiftedClock(clock, 0.005))]
    for (const name of sessionNames) {
      this.#sessions.set(name, { phase: 'new', epoch: 0, remembered: undefined, attempts: [] })
      for (const registry of [0, 1]) this.#offer(`${name} starts via R${registry}`, () => this.#start(name, registry))
    }
  }

  /** Runs the picked actions, then whatever is left, and says what is wrong when all is quiet. */
  async run(picks: readonly number[]): Promise<string[]> {
    for (let turn = 0; this.#actions.length > 0; turn += 1) {
      // After the picks: oldest first, so that everything ends. Sockets that are open stay open.
      const pick = picks[turn]
      const at =
        pick === undefined ? this.#actions.findIndex(({ name }) => !name.includes('socket')) : pick % this.#actions.length
      if (at < 0) break
      const [action] = this.#actions.splice(at, 1)
      if (action === undefined) break
      this.trace.push(action.name)
      action.run()
      await settled()
    }
    const { rows } = await this.#store.read(deviceId, 1000)
    await this.#database.close()
    const open = [...this.#sessions].filter(([, { phase }]) => phase === 'open').map(([name]) => fullId(name))
    const found: string[] = []
    if (open.length > 1) found.push(`two open sessions, nobody told: ${open}`)
    if (open.length > 0 && !rows.some(({ sessionId }) => open.includes(sessionId))) found.push(`open session ${open} has no row`)
    return found
  }

  #offer(name: string, run: () => void): void {
    this.#actions.push({ name, run })
  }

  /** Each step waits to be picked, is carried out, and is answered at once. */
  #gated(): SessionStore {
    const gate =
      <Args extends unknown[], R>(name: string, run: (...args: Args) => Promise<R>) =>
      (...args: Args) =>
        new Promise<R>((resolve, reject) => this.#offer(name, () => void run(...args).then(resolve, reject)))
    return {
      ...this.#store,
      read: gate('read', this.#store.read),
      insert: gate('insert', this.#store.insert),
      delete: gate('delete', this.#store.delete),
    }
  }

  #session(name: Name): EdgeSession {
    const session = this.#sessions.get(name)
    if (session === undefined) throw new Error(`no session ${name}`)
    return session
  }

  #start(name: Name, registry: number): void {
    const session = this.#session(name)
    if (session.phase !== 'new') return
    session.phase = 'registering'
    this.#attempt(name, registry)
    this.#offer(`${name} tries again`, () => {
      const [first] = session.attempts
      if (session.phase !== 'registering' || first === undefined || !first.waited) return
      first.waited = false
      this.#attempt(name, 1 - first.registry)
    })
    this.#offer(`${name} socket closes`, () => this.#close(name))
  }

  #attempt(name: Name, registry: number): void {
    const session = this.#session(name)
    const attempt = { waited: true, registry }
    session.attempts.push(attempt)
    const answered = this.#registries[registry]?.register({ deviceId, sessionId: name })
    void answered?.then((result) =>
      this.#offer(`${name} answer ${result.$case}`, () => {
        if (!attempt.waited) return
        attempt.waited = false
        if (session.phase !== 'registering') return this.#removeRows(name)
        if (result.$case !== 'registered') return this.#close(name)
        session.epoch = result.value.epoch
        for (const row of result.value.replacedSessions ?? []) this.#tell(row, { epoch: session.epoch, sessionId: fullId(name) })
        session.phase = 'open'
        const own = { epoch: session.epoch, sessionId: fullId(name) }
        if (session.remembered !== undefined && compareRows(own, session.remembered) < 0) this.#close(name)
      }),
    )
  }

  #tell(replaced: { sessionId: string }, by: Pair): void {
    const name = sessionNames.find((one) => fullId(one) === replaced.sessionId)
    if (name === undefined) throw new Error(`an unknown session was replaced: ${replaced.sessionId}`)
    const session = this.#session(name)
    this.#offer(`CloseSession ${name}`, () => {
      if (session.phase === 'open' && compareRows({ epoch: session.epoch, sessionId: fullId(name) }, by) < 0) this.#close(name)
      if (session.phase !== 'registering') return
      if (session.remembered === undefined || compareRows(by, session.remembered) > 0) session.remembered = by
    })
  }

  #close(name: Name): void {
    const session = this.#session(name)
    if (session.phase === 'closed') return
    session.phase = 'closed'
    this.#removeRows(name)
  }

  /** By epoch 0, as it may have tried more than once. */
  #removeRows(name: Name): void {
    void this.#registries[0]?.unregister({ deviceId, sessionId: name, epoch: 0 })
  }
}

/** Lets the step that was picked be carried out, with its transaction, and the code behind it go on to the next. */
async function settled(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve))
  await new Promise((resolve) => setImmediate(resolve))
}

test('whatever the order of steps, one session at most stays open, and it can be found', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(40), { minLength: 5, maxLength: 60 }), async (picks) => {
      const world = new World()
      const wrong = await world.run(picks)
      expect(wrong, world.trace.join(' → ')).toEqual([])
    }),
    { numRuns: 1500, seed: 20_261_125 },
  )
}, 300_000)
