// What standalone/, system-tests/ and bench/ may use of the registry.
export { type RegistryConfig, readRegistryConfig, registryConfig } from './config.ts'
export { registryRoles } from './roles.ts'
export { type Registry, type RegistryOptions, startRegistry } from './server.ts'
