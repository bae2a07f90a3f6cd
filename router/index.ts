// What standalone/, system-tests/ and bench/ may use of the router.
export { type RouterConfig, readRouterConfig, routerConfig } from './config.ts'
export { routerRoles } from './roles.ts'
export { queueHealthName, type Router, type RouterOptions, startRouter } from './server.ts'
