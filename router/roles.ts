import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { DeviceServiceDefinition } from '../gen/push/v1/devices.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { methodRoles, type RoleTable } from '../service-kit/access.ts'

/** Who may call what of a router. What a publisher or operator may do with it, the policy says. */
export const routerRoles: RoleTable = new Map([
  ...methodRoles(PublishServiceDefinition, {
    publish: ['publisher', 'operator'],
    publishStream: ['publisher', 'operator'],
    getMessage: ['publisher', 'operator'],
    watchMessage: ['publisher', 'operator'],
    cancelMessage: ['publisher', 'operator'],
  }),
  ...methodRoles(DeviceServiceDefinition, {
    getDevice: ['publisher', 'operator'],
    listAccountDevices: ['publisher', 'operator'],
  }),
  ...methodRoles(OperationsServiceDefinition, {
    listEdges: ['operator'],
    disconnectDevice: ['operator'],
    drainEdge: ['operator'],
    getEdgeDrain: ['operator'],
    abortEdgeDrain: ['operator'],
    listDeadLetters: ['operator'],
    getDeadLetter: ['operator'],
    replayDeadLetters: ['operator'],
    purgeDeadLetters: ['operator'],
  }),
  ...methodRoles(UplinkServiceDefinition, { report: ['edge'], flushInbox: ['edge'] }),
])
