import type { RegistryServiceImplementation } from '../gen/push/internal/v1/registry.ts'
import { requireEdgeName } from '../service-kit/caller.ts'
import type { ServedContext } from '../service-kit/grpc-server.ts'
import { edgeNameOf } from '../service-kit/peer-identity.ts'
import type { AccountDevices } from './account-devices.ts'
import type { Edges } from './edges.ts'
import type { Sessions } from './sessions.ts'

/** Binds sessions, accounts' devices and edges to gRPC. */
export function createRegistryService(
  sessions: Sessions,
  accountDevices: AccountDevices,
  edges: Edges,
): RegistryServiceImplementation<ServedContext> {
  return {
    register(request, context) {
      requireEdgeName(context.caller, edgeNameOf(request.edgeId))
      return sessions.register(request, context)
    },
    async unregister(request, context) {
      await sessions.unregister(request, context)
      return {}
    },
    lookup: (request, context) => sessions.lookup(request, context),
    lookupAccount: (request, context) => sessions.lookupAccount(request, context),
    forgetAccountDevices: async (request, context) => ({ forgottenCount: await accountDevices.forget(request, context) }),
    renewEdge(request, context) {
      // The id is minted from the name: both must be the caller's.
      requireEdgeName(context.caller, request.name)
      requireEdgeName(context.caller, edgeNameOf(request.edgeId))
      return edges.renew(request, context)
    },
    watchEdges(_request, context) {
      context.abortOnTerminate()
      return edges.watch(context)
    },
    listEdges: async (request) => edges.list(request),
  }
}
