// What standalone/, system-tests/ and bench/ may import from here.

export { type EdgeConfig, edgeConfig, readEdgeConfig } from './config.ts'
export { type EdgeContext, type RunningEdge, startEdge, stopGraceMs } from './server.ts'
