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
  /** Those that have not been sent, oldest first. By number, since there may be very many, and each may be settled before it is sent. */
  readonly #unsent = new Map<number, Ask>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#asks.size
  }

  /** Whether some have not been sent. */
  get sendable(): boolean {
    return this.#unsent.size > 0
  }

  /** Adds one under this number. Resolves with the edge's answer, never rejects. */
  add<Answer extends number>(id: number, frame: AskFrame, timeoutMs: number): Promise<Answer | 'unanswered' | 'gone'> {
    return new Promise((resolve) => {
      const timer = this.#clock.after(timeoutMs, () => this.settle(id, 'unanswered'))
      const ask: Ask = { frame, settle: (answer) => resolve(answer as Answer | 'unanswered' | 'gone'), timer }
      this.#asks.set(id, ask)
      this.#unsent.set(id, ask)
    })
  }

  /** Takes up to so many that have not been sent. */
  takeSendable(countMax: number): AskFrame[] {
    const frames: AskFrame[] = []
    for (const [id, { frame }] of this.#unsent) {
      if (frames.length >= countMax) break
      this.#unsent.delete(id)
      frames.push(frame)
    }
    return frames
  }

  /** The answer has come, or will not. */
  settle(id: number, answer: number | 'unanswered' | 'gone'): void {
    const ask = this.#asks.get(id)
    if (!ask) return
    this.#asks.delete(id)
    this.#unsent.delete(id)
    ask.timer.cancel()
    ask.settle(answer)
  }

  settleAll(answer: 'unanswered' | 'gone'): void {
    for (const id of [...this.#asks.keys()]) this.settle(id, answer)
  }
}
