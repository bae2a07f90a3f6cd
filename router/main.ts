import { describeConfig } from '../service-kit/config.ts'
import { openLiveConfig } from '../service-kit/live-config.ts'
import { runService } from '../service-kit/main-process.ts'
import { routerConfig } from './config.ts'
import { startRouter } from './server.ts'

await runService('router', async (context) => {
  const settings = openLiveConfig(routerConfig, () => context.env, context)
  context.closers.add('settings', context.reloads.onReload(settings.reload))
  const config = settings.current
  context.setGraceMs(config.drainGraceMs + config.ackTimeoutMs + 5_000)
  context.log.info('router starts', describeConfig(routerConfig, config))
  await startRouter({
    ...context,
    config,
    onFatal(cause) {
      // The process cannot be trusted to consume again: end it as any other defect, so that its supervisor starts it anew.
      setImmediate(() => {
        throw new Error('the queue cannot go on', { cause })
      })
    },
  })
})
