import type { CloseSession, InboxReady, InboxReadyAll } from '../../gen/push/internal/v1/edge.ts'
import type { Clock, Timer } from '../../service-kit/clock.ts'

/** What is asked: that a session closes, that it looks into its inbox, or that all do. */
export type AskFrame = { readonly close: CloseSession } | { readonly poke: InboxReady } | { readonly pokeAll: InboxReadyAll }

interface Ask {
  readonly frame: AskFrame
  readonly settle: (answer: number | 'unanswered' | 'gone') => void
  readonly timer: Timer
}

/** The closes and pokes of one link that wait for their answers. */
export class LinkAsks {
  readonly #clock: Clock
  readonly #asks = new Map<number, Ask>()
  readonly #unsent: Ask[] = []

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#asks.size
  }

  /** Whether some have not been sent. */
  get sendable(): boolean {
    return this.#unsent.length > 0
  }

  /** Adds one under this number. Resolves with the edge's answer, never rejects. */
  add<Answer extends number>(id: number, frame: AskFrame, timeoutMs: number): Promise<Answer | 'unanswered' | 'gone'> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(timeoutMs, () => this.settle(id, 'unanswered'))
      const ask: Ask = { frame, settle: (answer) => resolve(answer as Answer | 'unanswered' | 'gone'), timer }
      this.#asks.set(id, ask)
      this.#unsent.push(ask)
    })
  }

  /** Takes up to so many that have not been sent. */
  takeSendable(countMax: number): AskFrame[] {
    return this.#unsent.splice(0, countMax).map((ask) => ask.frame)
  }

  /** The answer has come, or will not. */
  settle(id: number, answer: number | 'unanswered' | 'gone'): void {
    const ask = this.#asks.get(id)
    if (!ask) return
    this.#asks.delete(id)
    ask.timer.cancel()
    const place = this.#unsent.indexOf(ask)
    if (place >= 0) this.#unsent.splice(place, 1)
    ask.settle(answer)
  }

  settleAll(answer: 'unanswered' | 'gone'): void {
    for (const id of [...this.#asks.keys()]) this.settle(id, answer)
  }
}
