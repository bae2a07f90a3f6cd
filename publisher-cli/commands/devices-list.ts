import type { Command } from 'commander'
import { type Device, DeviceServiceDefinition } from '../../gen/push/v1/devices.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { deviceStateFields } from '../device-state-fields.ts'
import { ExitCode } from '../exit-codes.ts'
import { isoTime, printable, table } from '../output.ts'

interface DevicesListOptions {
  account: string
  json?: boolean
  address?: string
}

// For each page: every device on it is looked up.
const timeoutMs = 10_000
const pageSize = 500

const help = `
Example:
  push-cli devices list --account family

Lists the devices that have logged in to the account within the last 90 days, by id, page by page. The column ACCOUNT is of the device's session now:
a device that belongs to another account by now gets no message of this one.`

export function addDevicesListCommand(devices: Command, context: CliContext): void {
  devices
    .command('list')
    .summary('list the devices of an account, and where they are')
    .description('Lists the devices of an account: which are connected, to which edge and since when.')
    .requiredOption('--account <id>', 'the account')
    .option('--json', 'one JSON object per device')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: DevicesListOptions) => context.exit(await listDevices(options, context)))
}

function listDevices({ account: accountId, json, address }: DevicesListOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(context, { address, timeoutMs }, async (service) => {
    const client = service.client(DeviceServiceDefinition)
    const rows: string[][] = []
    let pageToken = ''
    do {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const page = await client.listAccountDevices({ accountId, pageSize, pageToken }, call)
      if (page.nextPageToken !== '' && page.nextPageToken === pageToken)
        throw new Error('the list does not go on: the service has answered one page twice')
      pageToken = page.nextPageToken
      // Objects go out page by page; a table must know its widest word.
      if (json) for (const device of page.devices) output.data(JSON.stringify(deviceStateFields(device)))
      else rows.push(...page.devices.map(row))
      if (page.devices.length === 0 && rows.length === 0 && pageToken === '' && !json)
        output.talk('no device has logged in to this account')
    } while (pageToken !== '')
    if (rows.length > 0) for (const line of table(headings, rows)) output.data(line)
    return ExitCode.DONE
  })
}

const headings = ['DEVICE', 'CONNECTED', 'EDGE', 'SINCE', 'ACCOUNT']

function row({ deviceId, connected, edgeId, connectedTime, accountId }: Device): string[] {
  return [deviceId, connected ? 'yes' : 'no', edgeId || '-', isoTime(connectedTime) ?? '-', accountId || '-'].map(printable)
}
