import type { RegistryServiceImplementation } from '../gen/push/internal/v1/registry.ts'
import type { DrainContext } from '../service-kit/drain-middleware.ts'
import { PushError } from '../service-kit/errors.ts'
import type { Edges } from './edges.ts'
import type { Sessions } from './sessions.ts'

/** Binds sessions and edges to gRPC. */
export function createRegistryService(sessions: Sessions, edges: Edges): RegistryServiceImplementation<DrainContext> {
  return {
    register: (request, context) => sessions.register(request, context),
    async unregister(request, context) {
      await sessions.unregister(request, context)
      return {}
    },
    lookup: (request, context) => sessions.lookup(request, context),
    lookupAccount: () => notYet('devices of an account'),
    renewEdge: (request, context) => edges.renew(request, context),
    watchEdges(_request, context) {
      context.abortOnTerminate()
      return edges.watch(context)
    },
    listEdges: async (request) => edges.list(request),
  }
}

function notYet(what: string): Promise<never> {
  return Promise.reject(new PushError('NOT_IMPLEMENTED', `this version does not keep ${what} yet`))
}
