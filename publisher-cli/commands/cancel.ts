import type { Command } from 'commander'
import { MessageState } from '../../gen/push/v1/message.ts'
import { type CancelMessageResponse, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { ExitCode } from '../exit-codes.ts'
import { deviceFields } from '../message-fields.ts'
import { tellOutcome } from '../outcomes.ts'
import { printable } from '../output.ts'

interface CancelOptions {
  json?: boolean
  address?: string
}

const timeoutMs = 10_000

const help = `
Example:
  push-cli cancel 0197c2d4-5e6f-7a81-92b3-c4d5e6f70819

A message can be taken back while it is stored for a device that is offline. One that is in the queue or on its way cannot be recalled.
Ends with 0 when it was taken back, now or before, and with 1 when there was nothing to take back.`

export function addCancelCommand(program: Command, context: CliContext): void {
  program
    .command('cancel')
    .summary('take a stored message back')
    .description('Takes a message back from the inboxes that it lies in.')
    .argument('<message-id>', 'the id that send printed')
    .option('--json', 'one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (id: string, options: CancelOptions) => context.exit(await cancel(id, options, context)))
}

function cancel(messageId: string, options: CancelOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const answer = await service.client(PublishServiceDefinition).cancelMessage({ messageId }, call)
      const { removedCount, devices } = answer
      if (options.json) {
        const fields = { message_id: messageId, removed_count: removedCount, devices: devices.map(deviceFields) }
        output.data(JSON.stringify(fields))
      } else for (const line of lines(messageId, answer)) output.data(line)
      const takenBack = removedCount > 0 || devices.some(({ outcome }) => outcome?.state === MessageState.CANCELLED)
      return takenBack ? ExitCode.DONE : ExitCode.FAILED_ON_DEVICE
    },
    ({ failure }) => {
      if (options.json)
        output.data(JSON.stringify({ message_id: messageId, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}

function lines(messageId: string, { removedCount, devices }: CancelMessageResponse): string[] {
  if (devices.length === 0) {
    return [`nothing is recorded of message ${printable(messageId)}: while it is in the queue it cannot be recalled`]
  }
  const what = removedCount === 0 ? 'nothing to take back' : `taken back from ${removedCount} of ${devices.length}`
  const each = devices.map(({ deviceId, outcome }) => {
    const device = printable(deviceId)
    return `  ${device}: ${tellOutcome({ messageId, state: outcome?.state ?? 0, outcome }, device).words}`
  })
  return [what, ...each]
}
