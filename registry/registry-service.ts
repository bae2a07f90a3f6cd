import type { RegistryServiceImplementation } from '../gen/push/internal/v1/registry.ts'
import type { DrainContext } from '../service-kit/drain-middleware.ts'
import type { AccountDevices } from './account-devices.ts'
import type { Edges } from './edges.ts'
import type { Sessions } from './sessions.ts'

/** Binds sessions, accounts' devices and edges to gRPC. */
export function createRegistryService(
  sessions: Sessions,
  accountDevices: AccountDevices,
  edges: Edges,
): RegistryServiceImplementation<DrainContext> {
  return {
    register: (request, context) => sessions.register(request, context),
    async unregister(request, context) {
      await sessions.unregister(request, context)
      return {}
    },
    lookup: (request, context) => sessions.lookup(request, context),
    lookupAccount: (request, context) => sessions.lookupAccount(request, context),
    forgetAccountDevices: async (request, context) => ({ forgottenCount: await accountDevices.forget(request, context) }),
    renewEdge: (request, context) => edges.renew(request, context),
    watchEdges(_request, context) {
      context.abortOnTerminate()
      return edges.watch(context)
    },
    listEdges: async (request) => edges.list(request),
  }
}
