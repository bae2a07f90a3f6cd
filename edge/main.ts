import { describeConfig } from '../service-kit/config.ts'
import { openLiveConfig } from '../service-kit/live-config.ts'
import { runService } from '../service-kit/main-process.ts'
import { edgeConfig } from './config.ts'
import { startEdge, stopGraceMs } from './server.ts'

await runService('edge', async ({ env, setGraceMs, ...context }) => {
  const settings = openLiveConfig(edgeConfig, () => env, context)
  context.closers.add('settings', context.reloads.onReload(settings.reload))
  const config = settings.current
  setGraceMs(stopGraceMs(config))
  context.log.info('edge starts', describeConfig(edgeConfig, config))
  await startEdge({ config, settings, ...context })
})
