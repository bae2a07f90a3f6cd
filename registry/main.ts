import { describeConfig } from '../service-kit/config.ts'
import { openLiveConfig } from '../service-kit/live-config.ts'
import { runService } from '../service-kit/main-process.ts'
import { registryConfig } from './config.ts'
import { startRegistry } from './server.ts'

await runService('registry', async (context) => {
  const settings = openLiveConfig(registryConfig, () => context.env, context)
  context.closers.add('settings', context.reloads.onReload(settings.reload))
  const config = settings.current
  context.setGraceMs(config.drainGraceMs + 5_000)
  context.log.info('registry starts', describeConfig(registryConfig, config))
  await startRegistry({ ...context, config })
})
