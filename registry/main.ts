import { describeConfig } from '../service-kit/config.ts'
import { runService } from '../service-kit/main-process.ts'
import { readRegistryConfig, registryConfig } from './config.ts'
import { startRegistry } from './server.ts'

await runService('registry', async (context) => {
  const config = readRegistryConfig(context.env)
  context.setGraceMs(config.drainGraceMs + 5_000)
  context.log.info('registry starts', describeConfig(registryConfig, config))
  await startRegistry({ ...context, config })
})
