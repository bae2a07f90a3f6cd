import { createHash } from 'node:crypto'
import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { OperationsServiceDefinition, type OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import { PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import type { Act } from './audit-log.ts'

/** The name of a call of operators. */
export type OperatorCall = keyof OperationsServiceImplementation

/** What an operator's request may say; each call has some of it. */
interface OperatorRequest {
  readonly edgeId?: string
  readonly deviceId?: string
  readonly reason?: string
}

type TargetOf = (request: OperatorRequest) => string
const onEdge: TargetOf = ({ edgeId = '' }) => `edge/${edgeId}`
const onDevice: TargetOf = ({ deviceId = '' }) => `device/${deviceId}`
const onDeadLetters: TargetOf = () => 'dead-letters'

/** On whom each call of operators acts; `looks` for those that change nothing and are not recorded. Every call must be here. */
export const operatorCalls = {
  listEdges: 'looks',
  disconnectDevice: onDevice,
  drainEdge: onEdge,
  getEdgeDrain: 'looks',
  abortEdgeDrain: onEdge,
  listDeadLetters: 'looks',
  getDeadLetter: 'looks',
  replayDeadLetters: onDeadLetters,
  purgeDeadLetters: onDeadLetters,
} as const satisfies Record<OperatorCall, TargetOf | 'looks'>

/** What is recorded of an operator's call; undefined of one that changes nothing. The whole request is: operators send no payloads. */
export function operatorAct(principal: string, call: OperatorCall, request: unknown): Act | undefined {
  const targetOf = operatorCalls[call]
  if (targetOf === 'looks') return undefined
  const given: OperatorRequest = typeof request === 'object' && request !== null ? request : {}
  const { reason, ...rest } = given
  const action = `${OperationsServiceDefinition.fullName}/${OperationsServiceDefinition.methods[call].name}`
  return { principal, action, target: targetOf(given), reason: reason ?? '', detail: JSON.stringify(rest) }
}

/** What is recorded of a message that somebody takes back who has not published it. */
export function takeBackAct(principal: string, messageId: string): Act {
  const action = `${PublishServiceDefinition.fullName}/${PublishServiceDefinition.methods.cancelMessage.name}`
  return { principal, action, target: `message/${messageId}`, messageId }
}

/** What is recorded of a message of class RECOVERY. */
export function recoveryAct({ messageId, message, principal }: QueuedMessage): Act {
  const target = message?.target
  return {
    principal,
    action: `${PublishServiceDefinition.fullName}/${PublishServiceDefinition.methods.publish.name}`,
    target: `${target?.$case === 'accountId' ? 'account' : 'device'}/${target?.value ?? ''}`,
    payloadDigest: createHash('sha256')
      .update(message?.payload ?? Buffer.alloc(0))
      .digest(),
    messageId,
    name: message?.name ?? '',
  }
}
