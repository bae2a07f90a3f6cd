import type { CallContext } from 'nice-grpc-common'
import { OperationsServiceDefinition, type OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import type { DeniedCall } from '../../service-kit/access.ts'
import type { CallerContext } from '../../service-kit/caller.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import { type OperatorCall, operatorAct } from '../audit/acts.ts'
import type { AuditLog } from '../audit/audit-log.ts'
import type { Permissions } from './permissions.ts'
import type { Operation } from './policy-file.ts'

/** What each call of an operator takes. Which of them act, rather than look, says `operatorCalls` (audit/acts.ts). */
export const operationsByCall = {
  listEdges: 'edges.read',
  getEdgeDrain: 'edges.read',
  drainEdge: 'edges.drain',
  abortEdgeDrain: 'edges.drain',
  disconnectDevice: 'devices.disconnect',
  listDeadLetters: 'dead-letters.read',
  getDeadLetter: 'dead-letters.read',
  replayDeadLetters: 'dead-letters.replay',
  purgeDeadLetters: 'dead-letters.purge',
} as const satisfies Record<OperatorCall, Operation>

/**
 * The one way to the calls of operators. What the policy refuses is not done; what changes something is on record with who wants it, before it is done
 * and also when it is refused; what cannot be recorded is not done.
 */
export function guardOperations(
  service: OperationsServiceImplementation,
  permissions: Permissions,
  audit: Pick<AuditLog, 'decide'>,
): OperationsServiceImplementation<ServedContext> {
  const guard =
    <Request, Response>(call: OperatorCall, handle: (request: Request, context: CallContext) => Promise<Response>) =>
    async (request: Request, context: CallContext & CallerContext): Promise<Response> => {
      const { caller } = context
      const check = () => permissions.requireOperation(caller, operationsByCall[call])
      const act = operatorAct(caller.principal, call, request)
      if (act) await audit.decide(act, check)
      else check()
      return handle(request, context)
    }
  return {
    listEdges: guard('listEdges', service.listEdges),
    getEdgeDrain: guard('getEdgeDrain', service.getEdgeDrain),
    drainEdge: guard('drainEdge', service.drainEdge),
    abortEdgeDrain: guard('abortEdgeDrain', service.abortEdgeDrain),
    disconnectDevice: guard('disconnectDevice', service.disconnectDevice),
    listDeadLetters: guard('listDeadLetters', service.listDeadLetters),
    getDeadLetter: guard('getDeadLetter', service.getDeadLetter),
    replayDeadLetters: guard('replayDeadLetters', service.replayDeadLetters),
    purgeDeadLetters: guard('purgeDeadLetters', service.purgeDeadLetters),
  }
}

/** The calls of operators by their paths. */
const callsByPath = new Map(
  Object.entries(OperationsServiceDefinition.methods).map(([call, { name }]) => [
    `/${OperationsServiceDefinition.fullName}/${name}`,
    call as OperatorCall,
  ]),
)

/** Puts on record who has asked for an operator's action without being one: that call never comes as far as the guard. */
export async function recordDenied(audit: Pick<AuditLog, 'decide'>, { path, caller, request, error }: DeniedCall): Promise<void> {
  const call = callsByPath.get(path)
  const act = call && operatorAct(caller.principal, call, request)
  // It throws the refusal again, which is not ours to tell.
  if (act) await audit.decide(act, () => Promise.reject(error)).catch(() => undefined)
}
