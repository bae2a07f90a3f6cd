import { systemClock } from '../service-kit/clock.ts'
import { ExitCode } from './exit-codes.ts'
import { createOutput } from './output.ts'
import { runCommand } from './program.ts'

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    // The first one ends the command in order; who asks twice does not want to wait for that.
    if (interrupted.signal.aborted) process.exit(ExitCode.INTERRUPTED)
    interrupted.abort()
    // A command that waits for its data would wait on.
    process.stdin.destroy()
  })
}

// `push-cli listen | head -1`: nobody reads any more, so there is nothing left to do.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(ExitCode.DONE)
  throw error
})

process.exitCode = await runCommand(process.argv.slice(2), {
  env: process.env,
  output: createOutput(process.stdout, process.stderr),
  stdin: process.stdin,
  clock: systemClock,
  interrupted: interrupted.signal,
})
