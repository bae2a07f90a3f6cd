// What standalone/, system-tests/ and bench/ may import from here; and identity modules, the types.

export type { Credential, Identity, IdentityVerdict } from './auth/identity.ts'
export type { IdentityModule, IdentityModuleContext, ModuleIdentity } from './auth/identity-module.ts'
export { type EdgeConfig, edgeConfig, readEdgeConfig } from './config.ts'
export { edgeRoles } from './roles.ts'
export { type EdgeContext, type RunningEdge, startEdge, stopGraceMs } from './server.ts'
