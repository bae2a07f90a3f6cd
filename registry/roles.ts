import { InboxServiceDefinition } from '../gen/push/internal/v1/inbox.ts'
import { ReceiptServiceDefinition } from '../gen/push/internal/v1/receipts.ts'
import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { methodRoles, type RoleTable } from '../service-kit/access.ts'

/** Who may call what of a registry. */
export const registryRoles: RoleTable = new Map([
  ...methodRoles(RegistryServiceDefinition, {
    register: ['edge'],
    unregister: ['edge', 'router'],
    lookup: ['edge', 'router'],
    lookupAccount: ['router'],
    forgetAccountDevices: ['router'],
    renewEdge: ['edge'],
    watchEdges: ['router'],
    listEdges: ['router'],
  }),
  ...methodRoles(InboxServiceDefinition, { store: ['router'], read: ['router'], remove: ['router'], count: ['router'] }),
  ...methodRoles(ReceiptServiceDefinition, { record: ['router'], get: ['router'] }),
])
