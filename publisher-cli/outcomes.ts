import { type MessageOutcome, MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { DeviceOutcome } from '../gen/push/v1/publish.ts'
import { ExitCode } from './exit-codes.ts'
import { nameOf, printable } from './output.ts'

/** What a publish came to, for people and for scripts. */
export interface ToldOutcome {
  readonly exitCode: ExitCode
  readonly words: string
}

/** A message and the state it has reached, as a publish answers it. */
export interface ReachedState {
  readonly messageId: string
  readonly state: MessageState
  readonly outcome?: MessageOutcome | undefined
}

/** Says what became of a message to `device`. `elapsedMs` is how long that took, where it is known. */
export function tellOutcome(reached: ReachedState, device: string, elapsedMs?: number): ToldOutcome {
  const { state, outcome, messageId } = reached
  const reason = outcome?.reason ?? StateReason.UNSPECIFIED
  const detail = outcome?.detail ? `: ${printable(outcome.detail)}` : ''
  const id = `(message ${messageId})`
  const took = elapsedMs === undefined ? id : `in ${Math.max(1, Math.round(elapsedMs))} ms ${id}`
  const done = (words: string) => ({ exitCode: ExitCode.DONE, words })

  // The call ended before the message was done; it may still arrive.
  if (reason === StateReason.WAIT_ENDED) {
    const sofar = state === MessageState.WRITTEN ? `written to ${device}, not acknowledged yet` : 'not delivered yet'
    return { exitCode: ExitCode.GAVE_UP, words: `gave up waiting: ${sofar} ${id}` }
  }
  switch (state) {
    case MessageState.ACCEPTED:
      return done(`accepted ${messageId}`)
    case MessageState.ACKNOWLEDGED:
      return done(`acknowledged by ${device} ${took}`)
    case MessageState.COMPLETED:
      return done(`completed by ${device} ${took}`)
    // Also where an acknowledgement was wanted, and the device connected as one that never gives any.
    case MessageState.WRITTEN:
      return done(`written to ${device} ${took}`)
    case MessageState.STORED:
      return { exitCode: ExitCode.OFFLINE, words: `${storeWords(reason)}: stored ${id}` }
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

/**
 * What a message's outcomes at its devices come to: the code that all have, else SOME_FAILED. What is not final gives OFFLINE where it is stored, else
 * GAVE_UP: whoever looks has stopped waiting. `deviceCount` is how many devices there are, where more are known of than have an outcome.
 */
export function exitCodeOfDevices(devices: readonly DeviceOutcome[], deviceCount = 0): ExitCode {
  const codes = new Set(devices.map(exitCodeOfDevice))
  if (deviceCount > devices.length) codes.add(ExitCode.GAVE_UP)
  const [only] = codes
  if (only === undefined) return ExitCode.GAVE_UP
  return codes.size === 1 ? only : ExitCode.SOME_FAILED
}

function exitCodeOfDevice({ deviceId, outcome, final }: DeviceOutcome): ExitCode {
  const state = outcome?.state ?? MessageState.UNSPECIFIED
  if (!final) return state === MessageState.STORED ? ExitCode.OFFLINE : ExitCode.GAVE_UP
  return tellOutcome({ messageId: '', state, outcome }, deviceId).exitCode
}

/** What is said of a message at a device, among others; of an account without devices there is no name to begin with. */
export function headed({ deviceId }: DeviceOutcome, words: string): string {
  return deviceId === '' ? words : `${printable(deviceId)}: ${words}`
}

const dropWords: Partial<Record<StateReason, string>> = {
  [StateReason.UNSPECIFIED]: 'not delivered',
  [StateReason.UNREACHABLE]: 'unreachable',
  [StateReason.ACK_TIMEOUT]: 'written, but not acknowledged in time',
  [StateReason.SLOW_CONSUMER]: 'the device reads too slowly',
  [StateReason.UNKNOWN]: 'may or may not have reached the device',
  [StateReason.RATE_LIMITED]: 'too many messages for this device',
  [StateReason.ACCOUNT_MISMATCH]: 'the device is logged in to another account',
  [StateReason.NO_DEVICES]: 'no device has logged in to the account',
  [StateReason.TOO_LARGE]: "too large for the device's connection",
  [StateReason.INBOX_FULL]: "the device's inbox is full",
  [StateReason.CLOSED_UNACKNOWLEDGED]: 'written, but the connection closed before an acknowledgement',
}

function storeWords(reason: StateReason): string {
  const offline = reason === StateReason.OFFLINE || reason === StateReason.UNSPECIFIED
  return offline ? 'offline' : (dropWords[reason] ?? nameOf(StateReason, reason))
}

function because(reason: StateReason): string {
  return reason === StateReason.UNSPECIFIED ? '' : ` (${nameOf(StateReason, reason)})`
}
