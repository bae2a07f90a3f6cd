import type { Answer } from './answers.ts'

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

/** What this process knows of a message id. `running`: its handler has not returned yet. */
export type SeenState = { state: 'new' } | { state: 'running' } | { state: 'answered'; answer: Answer }

/** Remembers which messages were handed to a handler, and how they were answered. */
export interface Seen {
  look(id: string): SeenState
  /** The message waits for its handler, or is in it. */
  start(id: string): void
  /** The message has its answer; repeats get the same one. */
  answer(answer: Answer): void
  readonly answeredCount: number
}

/**
 * `answeredMax` bounds the answered ids, oldest go first; running ones are bounded by the handlers' queues. What is forgotten here and
 * sent again is handed over again.
 */
export function createSeen(answeredMax: number): Seen {
  const running = new Set<string>()
  const answered = new Map<string, Answer>()
  return {
    get answeredCount() {
      return answered.size
    },
    look(id) {
      if (running.has(id)) return { state: 'running' }
      const answer = answered.get(id)
      return answer === undefined ? { state: 'new' } : { state: 'answered', answer }
    },
    start: (id) => void running.add(id),
    answer(answer) {
      running.delete(answer.id)
      answered.set(answer.id, answer)
      if (answered.size <= answeredMax) return
      const oldest = answered.keys().next().value
      if (oldest !== undefined) answered.delete(oldest)
    },
  }
}
