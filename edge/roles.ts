import { EdgeServiceDefinition } from '../gen/push/internal/v1/edge.ts'
import { methodRoles, type RoleTable } from '../service-kit/access.ts'

/** Who may call what of an edge. */
export const edgeRoles: RoleTable = new Map(
  methodRoles(EdgeServiceDefinition, { deliver: ['router'], drain: ['router'], probe: ['router'] }),
)
