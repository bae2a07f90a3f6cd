import type { Command } from 'commander'
import { Status } from 'nice-grpc-common'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import type { DeviceOutcome } from '../../gen/push/v1/publish.ts'
import { callErrorOf } from '../../service-kit/errors.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { parseTimeoutMs } from '../durations.ts'
import { ExitCode } from '../exit-codes.ts'
import { followMessage } from '../following.ts'
import { deviceFields } from '../message-fields.ts'
import { exitCodeOfDevices } from '../outcomes.ts'
import { isoTime, nameOf, printable } from '../output.ts'

interface WatchOptions {
  timeout?: number
  json?: boolean
  address?: string
}

// For reaching the service; the watch itself has its own limit, or none.
const reachTimeoutMs = 10_000

const help = `
Example:
  push-cli watch 0197c2d4-5e6f-7a81-92b3-c4d5e6f70819 --timeout 1h

Prints a line for each change and ends when the message has come to its end at every device, with the exit code of that end.`

export function addWatchCommand(program: Command, context: CliContext): void {
  program
    .command('watch')
    .summary('follow a message to its end')
    .description('Follows a message to its final state, also while its device is offline.')
    .argument('<message-id>', 'the id that send printed')
    .option('--timeout <time>', 'longest wait (default: until the end)', parseTimeoutMs)
    .option('--json', 'one JSON object a change')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (id: string, options: WatchOptions) => context.exit(await watch(id, options, context)))
}

function watch(messageId: string, options: WatchOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  const known = new Map<string, DeviceOutcome>()
  let count = 0
  return withService(
    context,
    { address: options.address, timeoutMs: options.timeout ?? reachTimeoutMs },
    async (service) => {
      try {
        const following = { timeoutMs: options.timeout, accepted: false, signal: context.interrupted }
        for await (const { device, deviceCount } of followMessage(service, messageId, following, context)) {
          count = Math.max(count, deviceCount)
          if (!device || line(device) === line(known.get(device.deviceId))) continue
          known.set(device.deviceId, device)
          output.data(options.json ? JSON.stringify({ message_id: messageId, ...deviceFields(device) }) : line(device))
        }
        return exitCodeOfDevices([...known.values()], count)
      } catch (error) {
        if (context.interrupted.aborted || callErrorOf(error).status !== Status.DEADLINE_EXCEEDED) throw error
        output.talk('gave up waiting; the message has not come to its end')
        return ExitCode.GAVE_UP
      }
    },
    ({ failure }) => {
      if (options.json)
        output.data(JSON.stringify({ message_id: messageId, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}

function line(device: DeviceOutcome | undefined): string {
  if (!device) return ''
  const { outcome, time } = device
  const reason = outcome && outcome.reason !== StateReason.UNSPECIFIED ? ` (${nameOf(StateReason, outcome.reason)})` : ''
  const detail = outcome?.detail ? `: ${printable(outcome.detail)}` : ''
  const state = nameOf(MessageState, outcome?.state ?? MessageState.UNSPECIFIED)
  return `${isoTime(time) ?? '-'} ${printable(device.deviceId || 'account')} ${state}${reason}${detail}`
}
