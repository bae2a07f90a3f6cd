import { runService } from '../service-kit/main-process.ts'
import { readStandaloneConfig } from './config.ts'
import { startStandalone } from './standalone.ts'
import { welcomeText } from './welcome.ts'

const print = (text: string) => process.stdout.write(`${text}\n`)

await runService(
  'standalone',
  async (context) => {
    const config = readStandaloneConfig(context.env)
    const plane = await startStandalone({
      ...context,
      config,
      print,
      onFatal(cause) {
        setImmediate(() => {
          throw new Error('the queue cannot go on', { cause })
        })
      },
    })
    print(welcomeText(plane))
  },
  { defaultLogLevel: 'warn' },
)
