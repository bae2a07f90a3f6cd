import type { CallContext } from 'nice-grpc-common'
import type { OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import type { CallerContext } from '../../service-kit/caller.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import type { Permissions } from './permissions.ts'
import type { Operation } from './policy-file.ts'

/** What each call of an operator takes. Those that act, rather than look, are recorded with who did them. */
export const operationsByCall = {
  listEdges: { operation: 'edges.read', acts: false },
  getEdgeDrain: { operation: 'edges.read', acts: false },
  drainEdge: { operation: 'edges.drain', acts: true },
  abortEdgeDrain: { operation: 'edges.drain', acts: true },
  disconnectDevice: { operation: 'devices.disconnect', acts: true },
  listDeadLetters: { operation: 'dead-letters.read', acts: false },
  getDeadLetter: { operation: 'dead-letters.read', acts: false },
  replayDeadLetters: { operation: 'dead-letters.replay', acts: true },
  purgeDeadLetters: { operation: 'dead-letters.purge', acts: true },
} as const satisfies Record<keyof OperationsServiceImplementation, { operation: Operation; acts: boolean }>

/** Something that an operator wants done. */
export interface OperatorAction {
  readonly principal: string
  /** The call's name in the contract's own letters: `drainEdge`. */
  readonly call: keyof typeof operationsByCall
  readonly request: unknown
  readonly allowed: boolean
}

/**
 * Puts the policy before the calls of operators. Every action passes `onAction` with who wants it, allowed or refused, and is done when that has
 * resolved; when it rejects, nothing is done.
 */
export function guardOperations(
  service: OperationsServiceImplementation,
  permissions: Permissions,
  onAction: (action: OperatorAction) => Promise<void>,
): OperationsServiceImplementation<ServedContext> {
  const guard =
    <Request, Response>(
      call: keyof typeof operationsByCall,
      handle: (request: Request, context: CallContext) => Promise<Response>,
    ) =>
    async (request: Request, context: CallContext & CallerContext): Promise<Response> => {
      const { operation, acts } = operationsByCall[call]
      const { caller } = context
      try {
        permissions.requireOperation(caller, operation)
      } catch (refusal) {
        if (acts) await onAction({ principal: caller.principal, call, request, allowed: false })
        throw refusal
      }
      if (acts) await onAction({ principal: caller.principal, call, request, allowed: true })
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
