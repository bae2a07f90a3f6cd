import { runService } from '../service-kit/main-process.ts'
import { readEdgeConfig } from './config.ts'
import { startEdge, stopGraceMs } from './server.ts'

await runService('edge', async ({ env, setGraceMs, ...context }) => {
  const config = readEdgeConfig(env)
  setGraceMs(stopGraceMs(config))
  await startEdge({ config, ...context })
})
