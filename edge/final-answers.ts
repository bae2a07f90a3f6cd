import type { Clock } from '../service-kit/clock.ts'
import type { OutcomeFacts } from './entry.ts'

/** How long a final answer is remembered. */
export const finalAnswerTtlMs = 120_000
/** How many are remembered; the oldest go first. */
export const finalAnswersMax = 65_536

/** Last outcomes by (device, message id): a delivery that is repeated because its answer was lost gets them, and writes nothing. */
export class FinalAnswers {
  readonly #clock: Clock
  // Oldest first, as a Map keeps the order of insertion.
  readonly #answers = new Map<string, { readonly facts: OutcomeFacts; readonly until: number }>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#answers.size
  }

  remember(deviceId: string, messageId: string, facts: OutcomeFacts): void {
    const key = keyOf(deviceId, messageId)
    const nowMs = this.#clock.monotonic()
    this.#answers.delete(key)
    this.#answers.set(key, { facts, until: nowMs + finalAnswerTtlMs })
    for (const [oldKey, { until }] of this.#answers) {
      if (until > nowMs && this.#answers.size <= finalAnswersMax) break
      this.#answers.delete(oldKey)
    }
  }

  find(deviceId: string, messageId: string): OutcomeFacts | undefined {
    const found = this.#answers.get(keyOf(deviceId, messageId))
    return found !== undefined && found.until > this.#clock.monotonic() ? found.facts : undefined
  }
}

function keyOf(deviceId: string, messageId: string): string {
  return `${deviceId} ${messageId}` // ids hold no space
}
