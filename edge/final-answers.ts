import type { Clock } from '../service-kit/clock.ts'
import type { OutcomeFacts } from './entry.ts'

/** How long a final answer is remembered. */
export const finalAnswerTtlMs = 120_000
/** How many are remembered; the oldest go first. */
export const finalAnswersMax = 65_536
/** How many bytes of results are remembered with them. */
export const finalAnswersResultBytesMax = 16 * 1024 * 1024

/** Last outcomes by (device, message id): a delivery that is repeated because its answer was lost gets them, and writes nothing. */
export class FinalAnswers {
  readonly #clock: Clock
  // Oldest first, as a Map keeps the order of insertion.
  readonly #answers = new Map<string, { readonly facts: OutcomeFacts; readonly until: number }>()
  #resultBytes = 0

  constructor(clock: Clock) {
    this.#clock = clock
  }

  get size(): number {
    return this.#answers.size
  }

  remember(deviceId: string, messageId: string, facts: OutcomeFacts): void {
    const key = keyOf(deviceId, messageId)
    const nowMs = this.#clock.monotonic()
    this.#forget(key)
    this.#answers.set(key, { facts, until: nowMs + finalAnswerTtlMs })
    this.#resultBytes += resultBytes(facts)
    for (const [oldKey, { until }] of this.#answers) {
      const fits = this.#answers.size <= finalAnswersMax && this.#resultBytes <= finalAnswersResultBytesMax
      if (until > nowMs && fits) break
      this.#forget(oldKey)
    }
  }

  find(deviceId: string, messageId: string): OutcomeFacts | undefined {
    const found = this.#answers.get(keyOf(deviceId, messageId))
    return found !== undefined && found.until > this.#clock.monotonic() ? found.facts : undefined
  }

  #forget(key: string): void {
    const found = this.#answers.get(key)
    if (found === undefined) return
    this.#answers.delete(key)
    this.#resultBytes -= resultBytes(found.facts)
  }
}

function keyOf(deviceId: string, messageId: string): string {
  return `${deviceId} ${messageId}` // ids hold no space
}

function resultBytes({ result }: OutcomeFacts): number {
  return result === undefined ? 0 : result.data.length + result.message.length
}
