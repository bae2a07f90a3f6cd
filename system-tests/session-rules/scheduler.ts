/** Something that can happen next. */
export interface Happening {
  /** As the trace tells it. */
  readonly name: string
  /**
   * must: it happens before the end, only its moment is open. may: what a device, a network or a clock does unasked; at the
   * end what has not happened does not happen any more.
   */
  readonly sort: 'must' | 'may'
  readonly run: () => void | Promise<void>
  /** What may go wrong in its place, by what the trace says of it. Each run of a schedule has a bounded number of these. */
  readonly faults?: Readonly<Record<string, () => void | Promise<void>>>
}

/** The largest number that a choice may be. */
export const choiceMax = 0xffff

/** Most faults in one run: it ends, however the choices fall. */
const faultsMax = 3
/** One in so many choices that could be a fault, or an unasked happening, is one, unless told otherwise. */
const shares = { faultShare: 16, unaskedShare: 16 }

/** Decides what happens next, one thing at a time, by a list of numbers. The same numbers give the same run. */
export class Scheduler {
  readonly trace: string[] = []
  readonly #happenings = new Set<Happening>()
  readonly #shares: typeof shares
  #faults = 0

  constructor(own: Partial<typeof shares> = {}) {
    this.#shares = { ...shares, ...own }
  }

  /** Adds what can happen from now on, once. Returns how to take it back. */
  offer(happening: Happening): () => void {
    this.#happenings.add(happening)
    return () => void this.#happenings.delete(happening)
  }

  /** Lets happen what has these names, in this order. Throws when there is nothing of a name. */
  async begin(names: readonly string[]): Promise<void> {
    await settle()
    for (const name of names) {
      const happening = [...this.#happenings].find((one) => one.name === name)
      if (happening === undefined) throw new Error(`'${name}' cannot happen after: ${this.trace.join(' → ')}`)
      await this.#take(happening, undefined)
    }
  }

  /** Lets happen what the choices say. */
  async follow(choices: readonly number[]): Promise<void> {
    await settle()
    for (const choice of choices) {
      const all = [...this.#happenings]
      if (all.length === 0) return
      const number = choice >> 1
      // Every other choice goes on with what came up last: so one call runs far while another stands still.
      const latest = choice % 2 === 1 ? all.findLast(({ sort }) => sort === 'must') : undefined
      const happening = latest ?? all[number % all.length]
      if (happening === undefined) return
      const rest = Math.floor(number / all.length)
      // Numbers shrink towards 0, which is what goes well and is asked for.
      if (happening.sort === 'may' && rest % this.#shares.unaskedShare !== 1) continue
      const faults = Object.entries(happening.faults ?? {})
      await this.#take(happening, this.#faults < faultsMax ? faults[(rest % this.#shares.faultShare) - 1] : undefined)
    }
  }

  /** Lets happen what must, oldest first, until nothing is left. */
  async finish(): Promise<void> {
    await settle()
    for (;;) {
      const next = [...this.#happenings].find(({ sort }) => sort === 'must')
      if (next === undefined) return
      await this.#take(next, undefined)
    }
  }

  async #take(happening: Happening, fault: [string, () => void | Promise<void>] | undefined): Promise<void> {
    this.#happenings.delete(happening)
    if (fault === undefined) {
      this.trace.push(happening.name)
      await happening.run()
    } else {
      this.#faults++
      this.trace.push(`${happening.name}: ${fault[0]}`)
      await fault[1]()
    }
    await settle()
  }
}

/** Lets everything go on that waits for nothing but the event loop: promises, a store's transaction, a batch that goes out. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
}
