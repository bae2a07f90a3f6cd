import type { Command } from 'commander'
import { DeviceServiceDefinition } from '../../gen/push/v1/devices.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { deviceStateFields } from '../device-state-fields.ts'
import { ExitCode } from '../exit-codes.ts'
import { printable, table } from '../output.ts'

interface DevicesGetOptions {
  json?: boolean
  address?: string
}

// One look-up: longer than this nobody wants to wait at a terminal.
const timeoutMs = 10_000

const help = `
Example:
  push-cli devices get my-tv

Ends with 0 when the device is connected, and with 4 when it is not.`

export function addDevicesGetCommand(devices: Command, context: CliContext): void {
  devices
    .command('get')
    .summary('say whether a device is connected, and where')
    .description('Says whether a device is connected, to which edge, since when, and for which account.')
    .argument('<id>', 'the device')
    .option('--json', 'one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (id: string, options: DevicesGetOptions) => context.exit(await getDevice(id, options, context)))
}

function getDevice(id: string, options: DevicesGetOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const { device } = await service.client(DeviceServiceDefinition).getDevice({ deviceId: id }, call)
      if (device === undefined) throw new Error('the service answered without a device')
      const fields = deviceStateFields(device)
      if (options.json) output.data(JSON.stringify(fields))
      else for (const line of lines(fields)) output.data(line)
      return device.connected ? ExitCode.DONE : ExitCode.OFFLINE
    },
    ({ failure }) => {
      if (options.json)
        output.data(JSON.stringify({ device_id: id, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}

function lines(fields: Record<string, unknown>): string[] {
  const rows = Object.entries(fields).filter(([, value]) => value !== undefined)
  return table(
    ['FIELD', 'VALUE'],
    rows.map(([name, value]) => [name, printable(String(value))]),
  )
}
