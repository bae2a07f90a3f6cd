import type { Answer } from './answers.ts'
import { sizeOfResult } from './result.ts'

/**
 * Where an app keeps the ids of recovery commands, so that a command which restarts the device is not carried out again when it is sent
 * again. Both calls may be repeated for the same id. An id may be forgotten once `expireTime` (µs since the Unix epoch, server's clock)
 * has passed.
 */
export interface SeenStore {
  has(id: string): boolean | Promise<boolean>
  /** Called before the handler runs: durable when it returns. */
  add(id: string, expireTime: number): void | Promise<void>
}

/** What this process knows of a message id. `running`: its handler has not returned yet; `answer` is what was said of it before. */
export type SeenState =
  | { state: 'new' }
  | { state: 'running'; answer: Answer | undefined }
  | { state: 'answered'; answer: Answer }

/** Remembers which messages were handed to a handler, and how they were answered. */
export interface Seen {
  look(id: string): SeenState
  /** The message waits for its handler, or is in it. */
  start(id: string): void
  /** The message is in its handler and has been acknowledged; repeats are as well. */
  acknowledge(answer: Answer): void
  /** The message has its answer; repeats get the same one. */
  answer(answer: Answer): void
  readonly answeredCount: number
}

/**
 * `resultBytesMax` bounds the results among the answers: above it the oldest are forgotten, and repeats of their messages acknowledged.
 * `answeredMax` bounds the answered ids, oldest go first; running ones are bounded by the handlers' queues. What is forgotten here and
 * sent again is handed over again.
 */
export function createSeen(answeredMax: number, resultBytesMax: number): Seen {
  const running = new Map<string, Answer | undefined>()
  const answered = new Map<string, Answer>()
  // Those of the answers that hold a result, with its size; oldest first.
  const results = new Map<string, number>()
  let resultBytes = 0

  function forgetResult(id: string): void {
    resultBytes -= results.get(id) ?? 0
    if (results.delete(id) && answered.has(id)) answered.set(id, { id })
  }

  return {
    get answeredCount() {
      return answered.size
    },
    look(id) {
      if (running.has(id)) return { state: 'running', answer: running.get(id) }
      const answer = answered.get(id)
      return answer === undefined ? { state: 'new' } : { state: 'answered', answer }
    },
    start: (id) => void running.set(id, undefined),
    acknowledge: (answer) => void running.set(answer.id, answer),
    answer(answer) {
      running.delete(answer.id)
      answered.set(answer.id, answer)
      if (answer.result !== undefined) {
        const bytes = sizeOfResult(answer.result)
        results.set(answer.id, bytes)
        resultBytes += bytes
        for (const id of results.keys()) {
          if (resultBytes <= resultBytesMax) break
          forgetResult(id)
        }
      }
      if (answered.size <= answeredMax) return
      const oldest = answered.keys().next().value
      if (oldest === undefined) return
      answered.delete(oldest)
      forgetResult(oldest)
    },
  }
}
