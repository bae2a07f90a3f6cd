import type { ClientFrame } from './frames.ts'
import { type Result, words } from './result.ts'

/** What the device says of a message: an acknowledgement, with a reason a refusal, or with a result that; a result acknowledges as well. */
export interface Answer {
  readonly id: string
  readonly refusal?: string
  readonly result?: Result
}

/** Answers owed on one connection, or on none while there is none. */
export interface Answers {
  /**
   * Notes an answer. A second answer to the same id takes the first one's place. Above the bound the oldest is forgotten, and `false`
   * returned: its message comes again, and is answered then.
   */
  owe(answer: Answer): boolean
  /** Takes out all that is owed as frames, acknowledgements up to `idsMax` to a frame. */
  takeFrames(idsMax: number): ClientFrame[]
  /** Notes that the edge has been heard: what was taken out before this is taken for read. */
  heard(): void
  /** Takes out what is owed, and what was taken out since the edge was last heard: it may be lost with the connection. */
  takeUnproven(): Answer[]
  readonly size: number
}

/** Most ids that the protocol allows in one acknowledgement. */
export const ACK_IDS_MAX = 100

/** `owedMax` bounds what is owed and, apart from it, what is remembered as sent but not proven. */
export function createAnswers(owedMax: number): Answers {
  const owed = new Map<string, Answer>()
  const unproven = new Map<string, Answer>()
  return {
    get size() {
      return owed.size
    },
    owe: (answer) => put(owed, answer, owedMax),
    takeFrames(idsMax) {
      const ids: string[] = []
      const frames: ClientFrame[] = []
      for (const answer of owed.values()) {
        put(unproven, answer, owedMax)
        if (answer.result !== undefined) frames.push({ type: 'result', id: answer.id, ...answer.result })
        else if (answer.refusal === undefined) ids.push(answer.id)
        else frames.push({ type: 'nack', id: answer.id, reason: words(answer.refusal) })
      }
      owed.clear()
      const perFrame = Math.max(1, Math.min(idsMax, ACK_IDS_MAX))
      for (let from = 0; from < ids.length; from += perFrame) frames.push({ type: 'ack', ids: ids.slice(from, from + perFrame) })
      return frames
    },
    heard: () => unproven.clear(),
    takeUnproven() {
      const answers = [...unproven.values(), ...owed.values()]
      unproven.clear()
      owed.clear()
      return answers
    },
  }
}

function put(answers: Map<string, Answer>, answer: Answer, sizeMax: number): boolean {
  answers.delete(answer.id)
  answers.set(answer.id, answer)
  if (answers.size <= sizeMax) return true
  const oldest = answers.keys().next().value
  if (oldest !== undefined) answers.delete(oldest)
  return false
}
