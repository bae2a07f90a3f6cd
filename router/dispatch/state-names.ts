import { MessageState, StateReason } from '../../gen/push/v1/message.ts'

const stateNames = namesByNumber(MessageState)
const reasonNames = namesByNumber(StateReason)

/** The state's name as in the contract, without prefix; for logs and metrics. */
export function stateName(state: MessageState): string {
  return stateNames.get(state) ?? String(state)
}

/** The reason's name as in the contract, without prefix; empty for UNSPECIFIED. */
export function reasonName(reason: StateReason): string {
  return reason === StateReason.UNSPECIFIED ? '' : (reasonNames.get(reason) ?? String(reason))
}

/** Whether a message has got where it should be by now: such ends are logged at debug, all others at info. */
export function isGoodEnd(state: MessageState): boolean {
  return (
    state === MessageState.STORED ||
    state === MessageState.WRITTEN ||
    state === MessageState.ACKNOWLEDGED ||
    state === MessageState.COMPLETED
  )
}

function namesByNumber(values: Record<string, number>): Map<number, string> {
  return new Map(Object.entries(values).map(([name, number]) => [number, name]))
}
