import { describeConfig } from '../service-kit/config.ts'
import { runService } from '../service-kit/main-process.ts'
import { edgeConfig, readEdgeConfig } from './config.ts'
import { startEdge, stopGraceMs } from './server.ts'

await runService('edge', async ({ env, setGraceMs, ...context }) => {
  const config = readEdgeConfig(env)
  setGraceMs(stopGraceMs(config))
  context.log.info('edge starts', describeConfig(edgeConfig, config))
  await startEdge({ config, ...context })
})
