import { type Outcome, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { DispatchEvent } from './outcomes.ts'

/** What an outcome means to the table. A kind that this version does not know counts as not connected: the device is looked up again. */
export function eventOf(outcome: Outcome): DispatchEvent {
  switch (outcome.kind) {
    case OutcomeKind.WRITTEN:
      return { kind: 'WRITTEN', final: outcome.final }
    case OutcomeKind.ACKNOWLEDGED:
      return { kind: 'ACKNOWLEDGED' }
    case OutcomeKind.RESULT:
      return { kind: 'RESULT', ok: outcome.result?.ok === true }
    case OutcomeKind.NACKED:
      return { kind: 'NACKED' }
    case OutcomeKind.CLOSED_UNACKNOWLEDGED:
      return { kind: 'CLOSED_UNACKNOWLEDGED' }
    case OutcomeKind.RATE_LIMITED:
      return { kind: 'RATE_LIMITED' }
    case OutcomeKind.SLOW_CONSUMER:
      return { kind: 'SLOW_CONSUMER' }
    case OutcomeKind.ACCOUNT_MISMATCH:
      return { kind: 'ACCOUNT_MISMATCH' }
    case OutcomeKind.EXPIRED:
      return { kind: 'EXPIRED' }
    case OutcomeKind.REPLACED:
      return { kind: 'REPLACED' }
    case OutcomeKind.TOO_LARGE:
      return { kind: 'TOO_LARGE' }
    default:
      return { kind: 'NOT_CONNECTED' }
  }
}

/** Whether it is the device that speaks: then the message is done. */
export function isAnswer(event: DispatchEvent): boolean {
  return event.kind === 'ACKNOWLEDGED' || event.kind === 'NACKED' || event.kind === 'RESULT'
}
