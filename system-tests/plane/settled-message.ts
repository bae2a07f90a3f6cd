import type { SettledMessage } from '../story.ts'
import type { LogLine } from './process-log.ts'

/** What a router's line says of a message's end; undefined for every other line. */
export function settledFrom({ phrase, facts, time }: Pick<LogLine, 'phrase' | 'facts' | 'time'>): SettledMessage | undefined {
  if (phrase !== 'message settled') return undefined
  return {
    messageId: String(facts.message_id),
    deviceId: String(facts.device_id),
    state: String(facts.state),
    reason: String(facts.reason),
    settledAt: time,
    origin: String(facts.origin),
    attemptCount: Number(facts.attempt_count ?? 0),
  }
}
