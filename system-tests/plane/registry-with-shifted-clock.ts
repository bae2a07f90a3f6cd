import process from 'node:process'
import { readRegistryConfig, startRegistry } from '../../registry/index.ts'
import { shiftedClock } from '../../service-kit/clock.ts'
import { runService } from '../../service-kit/main-process.ts'

// A registry as its own main starts it, but with a wall clock that is ahead by so many ms.
const aheadMs = Number(process.env.CLOCK_AHEAD_MS)

await runService('registry', async (context) => {
  const config = readRegistryConfig(context.env)
  context.setGraceMs(config.drainGraceMs + 5_000)
  await startRegistry({ ...context, config, clock: shiftedClock(context.clock, aheadMs) })
})
