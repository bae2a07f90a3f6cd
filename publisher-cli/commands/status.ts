import type { Command } from 'commander'
import { type DeviceOutcome, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import type { ExitCode } from '../exit-codes.ts'
import { deviceFields } from '../message-fields.ts'
import { exitCodeOfDevices, headed, tellOutcome } from '../outcomes.ts'
import { isoTime, printable } from '../output.ts'
import { storyLines } from '../story.ts'

interface StatusOptions {
  json?: boolean
  address?: string
}

// One look: longer than this nobody wants to wait at a terminal.
const timeoutMs = 10_000

const help = `
Example:
  push-cli status 0197c2d4-5e6f-7a81-92b3-c4d5e6f70819

Tells of each device when the message passed which part, with the milliseconds in between, and what became of it. Ends as send does: with
4 when the message is stored, with 6 when it has not come to its end yet, with 7 when it came to different ones at different devices. A message of which nothing is recorded may still be queued.`

export function addStatusCommand(program: Command, context: CliContext): void {
  program
    .command('status')
    .summary('tell the story of a message')
    .description('Tells what became of a message, hop by hop.')
    .argument('<message-id>', 'the id that send printed')
    .option('--json', 'one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (id: string, options: StatusOptions) => context.exit(await status(id, options, context)))
}

function status(messageId: string, options: StatusOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const { devices, expireTime, deviceCount } = await service.client(PublishServiceDefinition).getMessage({ messageId }, call)
      const expires = isoTime(expireTime)
      if (options.json) {
        const counted = deviceCount > 0 ? { device_count: deviceCount } : {}
        output.data(
          JSON.stringify({ message_id: messageId, expire_time: expires, ...counted, devices: devices.map(deviceFields) }),
        )
      } else {
        for (const device of devices) for (const line of deviceLines(messageId, device, expires)) output.data(line)
        const more = deviceCount - devices.length
        if (more > 0) output.data(`${more} of ${deviceCount} devices: nothing recorded yet; expires ${expires}`)
      }
      return exitCodeOfDevices(devices, deviceCount)
    },
    ({ failure }) => {
      if (options.json)
        output.data(JSON.stringify({ message_id: messageId, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}

function deviceLines(messageId: string, device: DeviceOutcome, expires: string | undefined): string[] {
  const name = printable(device.deviceId)
  const { words } = tellOutcome({ messageId, state: device.outcome?.state ?? 0, outcome: device.outcome }, name)
  const open = device.final || expires === undefined ? '' : `; not final, expires ${expires}`
  const result = device.result.length > 0 ? [`result: ${printable(Buffer.from(device.result).toString())}`] : []
  return [`${headed(device, words)}${open}`, ...storyLines(device).map((line) => `  ${line}`), ...result]
}
