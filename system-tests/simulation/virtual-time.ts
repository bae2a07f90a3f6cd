import { type Clock, sleepWith, type Timer } from '../../service-kit/clock.ts'
import type { SimulatedProcess } from './simulated-process.ts'

interface Happening {
  readonly at: number
  readonly order: number
  /** Whose code runs; undefined: nobody's, it happens in between. */
  readonly process: SimulatedProcess | undefined
  run: (() => void) | undefined
}

const realImmediate = globalThis.setImmediate

const stepsPerMs = 1_024
/** Turns of the event loop in one moment; more of them never end. */
const turnsMax = 10_000

/** What waits for the end of the event loop's turn, while the simulation runs the loop. */
let immediates: (() => void)[] = []

/**
 * Time that goes on only when nothing is left to do at this moment, and then jumps to the next thing that happens. All that happens does so one
 * after the other and in an order that depends on nothing but the moments it was asked for.
 */
export class VirtualTime {
  /** Wall clock of those whose clock is right, in ms since the epoch, when the simulation begins. */
  readonly startMs = 1_800_000_000_000
  readonly #heap: Happening[] = []
  #now = 0
  #order = 0

  /** Milliseconds since the beginning. */
  get now(): number {
    return this.#now
  }

  /** Has something happen after a delay in ms: at its process, unless that is dead by then; a paused one sees it when it goes on. */
  after(delayMs: number, process: SimulatedProcess | undefined, run: () => void): Timer {
    // In steps that binary fractions hold exactly: what is left of a wait must not be too small to let time go on.
    const steps = Math.ceil(Math.max(0, delayMs) * stepsPerMs)
    const happening: Happening = { at: this.#now + steps / stepsPerMs, order: this.#order++, process, run }
    push(this.#heap, happening)
    return {
      cancel() {
        happening.run = undefined
      },
    }
  }

  /** Runs until `untilMs`. */
  async run(untilMs: number): Promise<void> {
    await settle()
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.at > untilMs) {
        this.#now = untilMs
        return
      }
      pop(this.#heap)
      if (next.run === undefined) continue
      this.#now = Math.max(this.#now, next.at)
      const { process } = next
      if (process?.alive === false) continue
      if (process?.paused === true) {
        process.defer(next.run)
        continue
      }
      next.run()
      await settle()
    }
  }
}

/** The clock of one process: its wall clock may be wrong, and its timers end with it. */
export class ProcessClock implements Clock {
  readonly process: SimulatedProcess
  readonly #time: VirtualTime
  readonly #startMs: number

  constructor(process: SimulatedProcess, time: VirtualTime, aheadMs: number) {
    this.process = process
    this.#time = time
    this.#startMs = time.startMs + aheadMs
  }

  now(): number {
    return Math.floor(this.#startMs + this.#time.now)
  }

  nowMicros(): number {
    return Math.floor((this.#startMs + this.#time.now) * 1000)
  }

  monotonic(): number {
    return this.#time.now
  }

  after(delayMs: number, run: () => void): Timer {
    return this.#time.after(delayMs, this.process, run)
  }

  every(periodMs: number, run: () => void): Timer {
    let timer: Timer
    const arm = () => {
      timer = this.after(periodMs, () => {
        arm()
        run()
      })
    }
    arm()
    return { cancel: () => timer.cancel() }
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return sleepWith((ms, run) => this.after(ms, run), delayMs, signal)
  }
}

/** Runs with the end of the event loop's turn in the simulation's hands: nothing may depend on how the real loop goes round. */
export async function withVirtualTurns<T>(run: () => Promise<T>): Promise<T> {
  immediates = []
  const put = (callback: (...args: unknown[]) => void, ...args: unknown[]) => {
    const entry = () => callback(...args)
    immediates.push(entry)
    return entry
  }
  globalThis.setImmediate = put as unknown as typeof setImmediate
  const { stackTraceLimit } = Error
  // Calls fail by the thousand here, and their stacks, which nobody reads, would take a fifth of the time.
  Error.stackTraceLimit = 0
  try {
    return await run()
  } finally {
    Error.stackTraceLimit = stackTraceLimit
    globalThis.setImmediate = realImmediate
    immediates = []
  }
}

/** Lets everything go on that waits for no time: promises, and the ends of turns that start one another. */
async function settle(): Promise<void> {
  for (let turns = 0; ; turns++) {
    if (turns > turnsMax) throw new Error(`the event loop goes round for ever: ${immediates.map(String).join('; ')}`)
    // Only when every promise has been seen to does the real loop come to this.
    await new Promise<void>((resolve) => realImmediate(resolve))
    if (immediates.length === 0) return
    const turn = immediates
    immediates = []
    for (const run of turn) run()
  }
}

function isBefore(one: Happening, other: Happening): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order)
}

function push(heap: Happening[], happening: Happening): void {
  let index = heap.length
  heap.push(happening)
  while (index > 0) {
    const above = (index - 1) >> 1
    const parent = heap[above]
    if (parent === undefined || !isBefore(happening, parent)) break
    heap[index] = parent
    index = above
  }
  heap[index] = happening
}

function pop(heap: Happening[]): void {
  const last = heap.pop()
  if (last === undefined || heap.length === 0) return
  let index = 0
  for (;;) {
    let below = 2 * index + 1
    const [left, right] = [heap[below], heap[below + 1]]
    if (left === undefined) break
    if (right !== undefined && isBefore(right, left)) below++
    const child = heap[below]
    if (child === undefined || !isBefore(child, last)) break
    heap[index] = child
    index = below
  }
  heap[index] = last
}
