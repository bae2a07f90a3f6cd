import type { Command } from 'commander'
import { type GetDeadLetterResponse, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { buriedMessageFields, summaryFields } from '../dead-letter-fields.ts'
import { ExitCode } from '../exit-codes.ts'
import { isoTime, printable, table } from '../output.ts'

interface DeadLettersShowOptions {
  json?: boolean
  address?: string
}

const timeoutMs = 60_000

const help = `
Examples:
  push-cli dead-letters show 3:17
  push-cli dead-letters show 3:17 --json | jq -r .value_base64 | base64 -d > record`

export function addDeadLettersShowCommand(deadLetters: Command, context: CliContext): void {
  deadLetters
    .command('show')
    .summary('show one of them whole')
    .description('Shows a dead letter, with the message in it where that can be read.')
    .argument('<position>', 'where it lies, as list prints it')
    .option('--json', 'one JSON object, with payload and record in base64')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (position: string, options: DeadLettersShowOptions) => context.exit(await show(position, options, context)))
}

function show(position: string, options: DeadLettersShowOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const letter = await service.client(OperationsServiceDefinition).getDeadLetter({ position }, call)
      if (letter.summary === undefined) throw new Error('the service answered without a summary')
      const fields = fieldsOf(letter)
      if (options.json) {
        const payload = letter.message && Buffer.from(letter.message.payload).toString('base64')
        const value = Buffer.from(letter.value).toString('base64')
        output.data(JSON.stringify({ ...fields, payload_base64: payload, value_base64: value }))
      } else for (const line of lines(fields)) output.data(line)
      return ExitCode.DONE
    },
    ({ failure }) => {
      if (options.json) output.data(JSON.stringify({ position, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}

function fieldsOf(letter: GetDeadLetterResponse): Record<string, unknown> {
  return {
    ...(letter.summary && summaryFields(letter.summary)),
    ...(letter.message && buriedMessageFields(letter.message)),
    accept_time: isoTime(letter.acceptTime),
    expire_time: isoTime(letter.expireTime),
    principal: letter.principal || undefined,
    attempt: letter.message ? letter.attempt : undefined,
    value_bytes: letter.value.length,
  }
}

function lines(fields: Record<string, unknown>): string[] {
  const rows = Object.entries(fields).filter(([, value]) => value !== undefined)
  return table(
    ['FIELD', 'VALUE'],
    rows.map(([name, value]) => [name, printable(String(value))]),
  )
}
