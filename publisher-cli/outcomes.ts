import { MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { PublishResponse } from '../gen/push/v1/publish.ts'
import { ExitCode } from './exit-codes.ts'
import { nameOf, printable } from './output.ts'

/** What a publish came to, for people and for scripts. */
export interface ToldOutcome {
  readonly exitCode: ExitCode
  readonly words: string
}

/** Says what became of a message to `device`. `elapsedMs` is how long the call took. */
export function tellOutcome(response: PublishResponse, device: string, elapsedMs: number): ToldOutcome {
  const { state, outcome } = response
  const reason = outcome?.reason ?? StateReason.UNSPECIFIED
  const detail = outcome?.detail ? `: ${printable(outcome.detail)}` : ''
  const took = `in ${Math.max(1, Math.round(elapsedMs))} ms (message ${response.messageId})`
  const id = `(message ${response.messageId})`
  const done = (words: string) => ({ exitCode: ExitCode.DONE, words })

  // The call ended before the message was done; it may still arrive.
  if (reason === StateReason.WAIT_ENDED) {
    const sofar = state === MessageState.WRITTEN ? `written to ${device}, not acknowledged yet` : 'not delivered yet'
    return { exitCode: ExitCode.GAVE_UP, words: `gave up waiting: ${sofar} ${id}` }
  }
  switch (state) {
    case MessageState.ACCEPTED:
      return done(`accepted ${response.messageId}`)
    case MessageState.ACKNOWLEDGED:
      return done(`acknowledged by ${device} ${took}`)
    case MessageState.COMPLETED:
      return done(`completed by ${device} ${took}`)
    // Also where an acknowledgement was wanted, and the device connected as one that never gives any.
    case MessageState.WRITTEN:
      return done(`written to ${device} ${took}`)
    case MessageState.STORED:
      return { exitCode: ExitCode.OFFLINE, words: `offline: stored ${id}` }
    case MessageState.FAILED:
      return {
        exitCode: ExitCode.FAILED_ON_DEVICE,
        words:
          reason === StateReason.NACKED
            ? `refused by ${device}${detail} ${id}`
            : `failed on ${device}${because(reason)}${detail} ${id}`,
      }
    case MessageState.DROPPED:
      return reason === StateReason.OFFLINE
        ? { exitCode: ExitCode.OFFLINE, words: `offline: dropped ${id}` }
        : { exitCode: ExitCode.NOT_DELIVERED, words: `${dropWords[reason] ?? nameOf(StateReason, reason)}: dropped ${id}` }
    default:
      return {
        exitCode: ExitCode.NOT_DELIVERED,
        words: `${nameOf(MessageState, state).toLowerCase().replace('_', ' ')}${because(reason)}${detail} ${id}`,
      }
  }
}

const dropWords: Partial<Record<StateReason, string>> = {
  [StateReason.UNSPECIFIED]: 'not delivered',
  [StateReason.UNREACHABLE]: 'unreachable',
  [StateReason.ACK_TIMEOUT]: 'written, but not acknowledged in time',
  [StateReason.SLOW_CONSUMER]: 'the device reads too slowly',
  [StateReason.UNKNOWN]: 'may or may not have reached the device',
  [StateReason.RATE_LIMITED]: 'too many messages for this device',
  [StateReason.ACCOUNT_MISMATCH]: 'the device is logged in to another account',
  [StateReason.CLOSED_UNACKNOWLEDGED]: 'written, but the connection closed before an acknowledgement',
}

function because(reason: StateReason): string {
  return reason === StateReason.UNSPECIFIED ? '' : ` (${nameOf(StateReason, reason)})`
}
