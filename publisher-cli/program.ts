import { Command, CommanderError } from 'commander'
import { addCancelCommand } from './commands/cancel.ts'
import { addDeadLettersListCommand } from './commands/dead-letters-list.ts'
import { addDeadLettersPurgeCommand } from './commands/dead-letters-purge.ts'
import { addDeadLettersReplayCommand } from './commands/dead-letters-replay.ts'
import { addDeadLettersShowCommand } from './commands/dead-letters-show.ts'
import { addDevicesDisconnectCommand } from './commands/devices-disconnect.ts'
import { addDevicesGetCommand } from './commands/devices-get.ts'
import { addDevicesListCommand } from './commands/devices-list.ts'
import { addEdgesDrainCommand } from './commands/edges-drain.ts'
import { addEdgesListCommand } from './commands/edges-list.ts'
import { addListenCommand } from './commands/listen.ts'
import { addSendCommand } from './commands/send.ts'
import { addStatusCommand } from './commands/status.ts'
import { addWatchCommand } from './commands/watch.ts'
import type { CliContext } from './context.ts'
import { ExitCode, exitCodesHelp } from './exit-codes.ts'
import packageJson from './package.json' with { type: 'json' }
import { addTransportOptions, type TransportOptions } from './service-transport.ts'
import { UsageError } from './usage-error.ts'

const help = `
Examples:
  push-cli listen --device my-tv
  push-cli send --device my-tv --data '{"text":"hello"}'
  push-cli status 0197c2d4-5e6f-7a81-92b3-c4d5e6f70819
${exitCodesHelp}`

/** Runs one command line, without the program's own name, and says what the process ends with. Throws at defects only. */
export async function runCommand(args: readonly string[], world: Omit<CliContext, 'exit' | 'transport'>): Promise<ExitCode> {
  let exitCode: ExitCode = ExitCode.DONE
  let transport: TransportOptions = {}
  const context: CliContext = {
    ...world,
    get transport() {
      return transport
    },
    exit: (code) => {
      exitCode = code
    },
  }
  try {
    const program = createProgram(context)
    addTransportOptions(program)
    program.hook('preAction', (_program, command) => {
      transport = command.opts()
    })
    await program.parseAsync(args, { from: 'user' })
    return exitCode
  } catch (error) {
    if (context.interrupted.aborted) return ExitCode.INTERRUPTED
    if (error instanceof UsageError) {
      context.output.talk(`error: ${error.message}`)
      return ExitCode.USAGE
    }
    // Help and version end with 0; whatever else commander ends with is a command line it does not understand.
    if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.DONE : ExitCode.USAGE
    throw error
  }
}

function createProgram(context: CliContext): Command {
  const { output } = context
  const program = new Command('push-cli')
    .description('Send messages to devices, be a device, and look at the plane.')
    .version(packageJson.version)
    .helpCommand(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => output.data(text.trimEnd()),
      writeErr: (text) => output.talk(text.trimEnd()),
    })
    .configureHelp({ helpWidth: 110 })
    .showHelpAfterError('(--help shows what is possible)')
    .addHelpText('after', help)
  addSendCommand(program, context)
  addStatusCommand(program, context)
  addWatchCommand(program, context)
  addCancelCommand(program, context)
  addListenCommand(program, context)
  const group = (name: string, description: string, example: string) =>
    program.command(name).description(description).helpCommand(false).addHelpText('after', `\nExample:\n  push-cli ${example}`)
  const devices = group('devices', 'Looks at devices, and closes their sessions.', 'devices get my-tv')
  addDevicesGetCommand(devices, context)
  addDevicesListCommand(devices, context)
  addDevicesDisconnectCommand(devices, context)
  const edges = group('edges', 'Looks at edges and drains them.', 'edges list')
  addEdgesListCommand(edges, context)
  addEdgesDrainCommand(edges, context)
  const deadLetters = group('dead-letters', 'Looks after messages that could not be delivered to anybody.', 'dead-letters list')
  addDeadLettersListCommand(deadLetters, context)
  addDeadLettersShowCommand(deadLetters, context)
  addDeadLettersReplayCommand(deadLetters, context)
  addDeadLettersPurgeCommand(deadLetters, context)
  return program
}
