import { type Command, InvalidArgumentError } from 'commander'
import { StateReason } from '../../gen/push/v1/message.ts'
import { type DeadLetterSummary, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { addressOption, type Service, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { summaryFields } from '../dead-letter-fields.ts'
import { ExitCode } from '../exit-codes.ts'
import { isoTime, nameOf, printable, table } from '../output.ts'

interface DeadLettersListOptions {
  limit: number
  page?: string
  json?: boolean
  address?: string
}

// For each page: on Kafka each is a consumer that joins a group first, and others may be before it.
const timeoutMs = 60_000
const pageSizeMax = 1_000
const limitMax = 100_000

const help = `
Examples:
  push-cli dead-letters list
  push-cli dead-letters list --limit 1000 --json | jq -r 'select(.reason == "TOO_LARGE") | .position'

By partition of the topic, in each the oldest first.`

export function addDeadLettersListCommand(deadLetters: Command, context: CliContext): void {
  deadLetters
    .command('list')
    .summary('list the messages that could not be delivered to anybody')
    .description('Lists dead letters: where each lies, where it came from and why.')
    .option('--limit <n>', 'at most so many', parseLimit, 100)
    .option('--page <token>', 'go on where an earlier list ended, as it said')
    .option('--json', 'one JSON object per dead letter')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: DeadLettersListOptions) => context.exit(await listDeadLetters(options, context)))
}

function parseLimit(text: string): number {
  const limit = Number(text)
  if (!/^\d{1,6}$/.test(text) || limit < 1 || limit > limitMax)
    throw new InvalidArgumentError(`Expected a whole number from 1 to ${limitMax}.`)
  return limit
}

function listDeadLetters(options: DeadLettersListOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(context, { address: options.address, timeoutMs }, async (service) => {
    const { letters, more } = await upTo(options.limit, options.page ?? '', service, context)
    if (options.json) for (const letter of letters) output.data(JSON.stringify(summaryFields(letter)))
    else for (const line of table(headings, letters.map(row))) output.data(line)
    if (letters.length === 0) output.talk('there are no dead letters')
    if (more !== '') output.talk(`there are more: --page ${printable(more)}`)
    return ExitCode.DONE
  })
}

async function upTo(limit: number, from: string, service: Service, context: CliContext) {
  const operations = service.client(OperationsServiceDefinition)
  const letters: DeadLetterSummary[] = []
  let pageToken = from
  // Each page has one at least, unless it is the last.
  for (let page = 0; page < limit; page += 1) {
    const call = { deadlineMs: timeoutMs, signal: context.interrupted }
    const pageSize = Math.min(limit - letters.length, pageSizeMax)
    const response = await operations.listDeadLetters({ pageSize, pageToken }, call)
    letters.push(...response.deadLetters)
    pageToken = response.nextPageToken
    if (pageToken === '' || letters.length >= limit) return { letters, more: pageToken }
  }
  throw new Error(`the list of dead letters does not end after ${limit} pages`)
}

const headings = ['POSITION', 'TIME', 'REASON', 'FOR', 'MESSAGE', 'ORIGIN', 'ERROR']

function row(letter: DeadLetterSummary): string[] {
  return [
    letter.position,
    isoTime(letter.time) ?? '-',
    nameOf(StateReason, letter.reason),
    letter.key || '-',
    letter.messageId || '-',
    letter.origin || '-',
    letter.error,
  ].map(printable)
}
