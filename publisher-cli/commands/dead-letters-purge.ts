import { type Command, InvalidArgumentError } from 'commander'
import { OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import { requireConfirmation } from '../confirmation.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { parseDurationMs } from '../durations.ts'
import { ExitCode } from '../exit-codes.ts'
import { isoTime } from '../output.ts'

interface Moment {
  /** As it was typed. */
  readonly text: string
  msAt(nowMs: number): number
}

interface DeadLettersPurgeOptions {
  before: Moment
  confirm?: string
  json?: boolean
  address?: string
}

const timeoutMs = 60_000

const help = `
Examples:
  push-cli dead-letters purge --before 7d --confirm 7d
  push-cli dead-letters purge --before 2026-03-01T00:00:00Z --confirm 2026-03-01T00:00:00Z

What is removed cannot be had back.`

export function addDeadLettersPurgeCommand(deadLetters: Command, context: CliContext): void {
  deadLetters
    .command('purge')
    .summary('remove those older than a moment')
    .description('Removes the dead letters that were put there before a moment.')
    .requiredOption('--before <time>', 'how long ago, such as 12h or 7d, or a time such as 2026-03-01T00:00:00Z', parseMoment)
    .option('--confirm <time>', 'the same once more: required, as it cannot be undone')
    .option('--json', 'one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: DeadLettersPurgeOptions) => context.exit(await purge(options, context)))
}

function parseMoment(text: string): Moment {
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)$/.test(text)) {
    // biome-ignore lint/style/noRestrictedGlobals: reads a time that was given, and asks for none
    const ms = Date.parse(text)
    if (!Number.isNaN(ms)) return { text, msAt: () => ms }
  }
  try {
    const ago = parseDurationMs(text)
    return { text, msAt: (nowMs) => nowMs - ago }
  } catch {
    throw new InvalidArgumentError('Expected how long ago, such as 12h or 7d, or a time such as 2026-03-01T00:00:00Z.')
  }
}

async function purge({ before, confirm, json, address }: DeadLettersPurgeOptions, context: CliContext): Promise<ExitCode> {
  const { output, clock } = context
  requireConfirmation(confirm, before.text, 'removes dead letters for good')
  const time = timestampFromMicros(Math.round(before.msAt(clock.now())) * 1_000)
  return withService(
    context,
    { address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const { purgedCount } = await service.client(OperationsServiceDefinition).purgeDeadLetters({ before: time }, call)
      const fields = { purged_count: purgedCount, before: isoTime(time) }
      output.data(json ? JSON.stringify(fields) : `removed ${purgedCount} from before ${isoTime(time)}`)
      return ExitCode.DONE
    },
    ({ failure }) => {
      if (json) output.data(JSON.stringify({ error: { reason: failure.reason, message: failure.message } }))
    },
  )
}
