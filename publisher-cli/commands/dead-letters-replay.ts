import type { Command } from 'commander'
import { type DeadLetterReplay, DeadLetterReplayState, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { requireConfirmation } from '../confirmation.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { ExitCode } from '../exit-codes.ts'
import { nameOf, printable } from '../output.ts'

interface DeadLettersReplayOptions {
  confirm?: string
  dryRun?: boolean
  json?: boolean
  address?: string
}

// A router goes on for a minute at most.
const timeoutMs = 65_000

const help = `
Examples:
  push-cli dead-letters replay 3:17 3:18 --dry-run
  push-cli dead-letters replay 3:17 3:18 --confirm 2

Each message goes into the queue again as it was, at the pace that the router allows; what has expired is left alone. Dead letters stay where
they are until they are purged: who replays one twice sends its message twice. Nothing is replayed when one of them cannot be read.
Ends with 0 when all were replayed, with 5 when all had expired, with 7 when some were not replayed, with 8 when the queue took none.`

export function addDeadLettersReplayCommand(deadLetters: Command, context: CliContext): void {
  deadLetters
    .command('replay')
    .summary('send their messages again')
    .description('Puts the messages of dead letters into the queue again.')
    .argument('<positions...>', 'where they lie, as list prints it; at most 1000')
    .option('--confirm <n>', 'how many they are: required, as it reaches devices')
    .option('--dry-run', 'say what would be replayed, replay nothing')
    .option('--json', 'one JSON object per dead letter')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (positions: string[], options: DeadLettersReplayOptions) =>
      context.exit(await replay(positions, options, context)),
    )
}

async function replay(positions: string[], options: DeadLettersReplayOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  const dryRun = options.dryRun === true
  if (!dryRun) requireConfirmation(options.confirm, String(positions.length), `sends ${positions.length} message(s) again`)
  const exitCode = await withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const { replays } = await service.client(OperationsServiceDefinition).replayDeadLetters({ positions, dryRun }, call)
      for (const one of replays) output.data(options.json ? JSON.stringify(fieldsOf(one)) : line(one))
      return exitCodeOf(replays)
    },
    ({ failure }) => {
      if (options.json) output.data(JSON.stringify({ error: { reason: failure.reason, message: failure.message } }))
    },
  )
  if (!dryRun && (exitCode === ExitCode.INTERRUPTED || exitCode === ExitCode.GAVE_UP))
    output.talk('some of the messages may have been sent again')
  return exitCode
}

function exitCodeOf(replays: readonly DeadLetterReplay[]): ExitCode {
  const count = (...states: DeadLetterReplayState[]) => replays.filter(({ state }) => states.includes(state)).length
  const replayed = count(DeadLetterReplayState.REPLAYED, DeadLetterReplayState.WOULD_REPLAY)
  if (replayed === replays.length) return ExitCode.DONE
  if (count(DeadLetterReplayState.EXPIRED) === replays.length) return ExitCode.NOT_DELIVERED
  return replayed === 0 ? ExitCode.UNAVAILABLE : ExitCode.SOME_FAILED
}

function fieldsOf({ position, messageId, state, detail }: DeadLetterReplay): object {
  return { position, message_id: messageId, state: nameOf(DeadLetterReplayState, state), detail: detail || undefined }
}

const words: Partial<Record<DeadLetterReplayState, string>> = {
  [DeadLetterReplayState.REPLAYED]: 'replayed',
  [DeadLetterReplayState.WOULD_REPLAY]: 'would be replayed',
  [DeadLetterReplayState.EXPIRED]: 'expired, left alone',
  [DeadLetterReplayState.FAILED]: 'failed',
  [DeadLetterReplayState.NOT_TRIED]: 'not tried',
}

function line({ position, messageId, state, detail }: DeadLetterReplay): string {
  const what = words[state] ?? nameOf(DeadLetterReplayState, state)
  return printable(`${position} ${messageId} ${what}${detail === '' ? '' : `: ${detail}`}`)
}
