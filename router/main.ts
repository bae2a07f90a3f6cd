import { describeConfig } from '../service-kit/config.ts'
import { runService } from '../service-kit/main-process.ts'
import { readRouterConfig, routerConfig } from './config.ts'
import { startRouter } from './server.ts'

await runService('router', async (context) => {
  const config = readRouterConfig(context.env)
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
