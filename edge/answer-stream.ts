import type { CloseSessionAnswer, DeliverResponse, InboxReadyAnswer, Outcome } from '../gen/push/internal/v1/edge.ts'
import { PushError } from '../service-kit/errors.ts'
import type { AnswerSink, OutcomeFacts } from './entry.ts'

/** Most answers of one frame, and about how many bytes. */
export const answersPerFrame = 256
export const answerFrameBytes = 256 * 1024
/** Most answers that wait for a router to take them; one more ends its stream. */
export const answersWaitingMax = 16_384
/** Most bytes of them; results may be large. */
export const answersWaitingBytesMax = 16 * 1024 * 1024

/** The answers of one router's stream: what comes in one turn of the event loop goes out together. */
export class AnswerStream implements AnswerSink {
  readonly #waitingMax: number
  readonly #onSlow: () => void
  #outcomes: Outcome[] = []
  #pokes: InboxReadyAnswer[] = []
  #closes: CloseSessionAnswer[] = []
  #ended = false
  #outcomeBytes = 0
  #failure: PushError | undefined
  #wake: (() => void) | undefined
  #scheduled = false

  constructor(options: { readonly waitingMax?: number; readonly onSlow: () => void }) {
    this.#waitingMax = options.waitingMax ?? answersWaitingMax
    this.#onSlow = options.onSlow
  }

  get ended(): boolean {
    return this.#ended
  }

  outcome(deliveryId: number, facts: OutcomeFacts): void {
    if (!this.#room()) return
    this.#outcomeBytes += sizeOf(facts)
    this.#outcomes.push({ deliveryId, result: undefined, ...facts })
  }

  poke(answer: InboxReadyAnswer): void {
    if (this.#room()) this.#pokes.push(answer)
  }

  close(answer: CloseSessionAnswer): void {
    if (this.#room()) this.#closes.push(answer)
  }

  /** No more answers are taken; those that wait still go out. */
  end(): void {
    this.#ended = true
    this.#schedule()
  }

  /** The frames to send, until the end. Throws BACKLOG_FULL when the router takes its answers too slowly. */
  async *frames(): AsyncGenerator<DeliverResponse> {
    for (;;) {
      if (this.#failure !== undefined) throw this.#failure
      if (this.#waiting > 0) yield this.#frame()
      else if (this.#ended) return
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
    }
  }

  get #waiting(): number {
    return this.#outcomes.length + this.#pokes.length + this.#closes.length
  }

  #room(): boolean {
    if (this.#ended) return false
    if (this.#waiting < this.#waitingMax && this.#outcomeBytes < answersWaitingBytesMax) {
      this.#schedule()
      return true
    }
    this.#failure = new PushError('BACKLOG_FULL', `${this.#waiting} answers wait to be taken; open the stream again`)
    this.#onSlow()
    this.#outcomes = []
    this.#outcomeBytes = 0
    this.#pokes = []
    this.#closes = []
    this.end()
    return false
  }

  /** At the end of the turn, without a timer: one would add its delay to every answer. */
  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      this.#wake?.()
      this.#wake = undefined
    })
  }

  #frame(): DeliverResponse {
    let count = 0
    let bytes = 0
    for (const outcome of this.#outcomes) {
      const size = sizeOf(outcome)
      if (count > 0 && (count >= answersPerFrame || bytes + size > answerFrameBytes)) break
      bytes += size
      count++
    }
    const outcomes = this.#outcomes.splice(0, count)
    this.#outcomeBytes -= bytes
    const pokes = this.#pokes.splice(0, answersPerFrame - count)
    const closes = this.#closes.splice(0, answersPerFrame - count - pokes.length)
    return { outcomes, inboxReadyAnswers: pokes, closeSessionAnswers: closes }
  }
}

/** About how many bytes an outcome takes: its numbers less than 64, a character of text at most 3. */
function sizeOf({ detail, sessionId, result }: OutcomeFacts | Outcome): number {
  return 64 + sessionId.length + detail.length * 3 + (result === undefined ? 0 : result.data.length + result.message.length * 3)
}
