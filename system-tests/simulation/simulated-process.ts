import type { Log } from '../../service-kit/log.ts'
import { createMetrics, type Metrics } from '../../service-kit/metrics.ts'
import { type Random, seededRandom } from '../../service-kit/random.ts'
import { ProcessClock } from './virtual-time.ts'
import type { World } from './world.ts'

/** One run of one process. Its code sees the world through what it is given here, and nothing of it reaches the world once it is dead. */
export class SimulatedProcess {
  /** As the trace calls it, with the number of its start. */
  readonly name: string
  readonly world: World
  readonly clock: ProcessClock
  readonly random: Random
  readonly metrics: Metrics
  readonly log: Log
  alive = true
  paused = false
  #deferred: (() => void)[] = []
  readonly #endings = new Set<() => void>()

  constructor(world: World, name: string, aheadMs = 0) {
    this.world = world
    this.name = name
    this.clock = new ProcessClock(this, world.time, aheadMs)
    this.random = seededRandom(Math.floor(world.random.next() * 2 ** 32))
    this.metrics = createMetrics()
    this.log = this.#createLog()
  }

  /** Has something happen in the world when it dies, unless taken back. */
  onDeath(run: () => void): () => void {
    this.#endings.add(run)
    return () => void this.#endings.delete(run)
  }

  /** Stops at once, without a word. */
  kill(): void {
    if (!this.alive) return
    this.world.trace(() => `${this.name} dies`)
    this.alive = false
    this.#deferred = []
    const endings = [...this.#endings]
    this.#endings.clear()
    for (const run of endings) run()
  }

  /** Does nothing more until it is resumed; what happens to it meanwhile it then sees all at once. */
  pause(): void {
    this.world.trace(() => `${this.name} is paused`)
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.world.trace(() => `${this.name} goes on`)
    this.paused = false
    const deferred = this.#deferred
    this.#deferred = []
    for (const run of deferred) this.world.time.after(0, this, run)
  }

  /** Keeps what happens while it is paused. */
  defer(run: () => void): void {
    this.#deferred.push(run)
  }

  #createLog(facts: Record<string, unknown> = {}): Log {
    const write = (level: string) => (phrase: string, more?: Record<string, unknown>) => {
      if (this.alive) this.world.logged({ process: this, level, phrase, facts: { ...facts, ...more } })
    }
    return {
      debug: write('debug'),
      info: write('info'),
      warn: write('warn'),
      error: write('error'),
      child: (more) => this.#createLog({ ...facts, ...more }),
    }
  }
}

/** Whose clock it is: how what stands in for the network, the store and the queue knows who calls. */
export function processOf(clock: unknown): SimulatedProcess {
  if (clock instanceof ProcessClock) return clock.process
  throw new Error('a part of the simulation runs on a clock that is not of it')
}
