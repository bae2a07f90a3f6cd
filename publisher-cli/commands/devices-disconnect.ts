import type { Command } from 'commander'
import { OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { ExitCode } from '../exit-codes.ts'
import { printable } from '../output.ts'

interface DevicesDisconnectOptions {
  reason?: string
  json?: boolean
  address?: string
}

// The router waits 6 s for edges.
const timeoutMs = 15_000

const help = `
Example:
  push-cli devices disconnect my-tv --reason "reported lost"

The device stays away until its app connects anew; to keep it out, withdraw its credential first.
Ends with 0 when its sessions are closed, with 4 when it had none, and with 8 when an edge did not answer: then say it again.`

export function addDevicesDisconnectCommand(devices: Command, context: CliContext): void {
  devices
    .command('disconnect')
    .summary("close a device's sessions at once")
    .description("Closes a device's sessions at once, with close code 4501.")
    .argument('<id>', 'the device')
    .option('--reason <text>', 'told to the device and the log, at most 100 characters')
    .option('--json', 'one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (id: string, options: DevicesDisconnectOptions) => context.exit(await disconnect(id, options, context)))
}

function disconnect(
  id: string,
  { reason = '', json, address }: DevicesDisconnectOptions,
  context: CliContext,
): Promise<ExitCode> {
  const { output } = context
  return withService(
    context,
    { address, timeoutMs },
    async (service) => {
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const operations = service.client(OperationsServiceDefinition)
      const { closedCount, unansweredCount } = await operations.disconnectDevice({ deviceId: id, reason }, call)
      const fields = { device_id: id, closed_count: closedCount, unanswered_count: unansweredCount }
      if (json) output.data(JSON.stringify(fields))
      else if (closedCount > 0) {
        output.data(`disconnected ${printable(id)}: ${closedCount} ${closedCount === 1 ? 'session' : 'sessions'} closed`)
      } else if (unansweredCount === 0) output.data(`${printable(id)} was not connected`)
      if (unansweredCount > 0) {
        output.talk('an edge did not answer, and the device may still be connected to it; say it again')
        return ExitCode.UNAVAILABLE
      }
      return closedCount > 0 ? ExitCode.DONE : ExitCode.OFFLINE
    },
    ({ failure }) => {
      if (json) output.data(JSON.stringify({ device_id: id, error: { reason: failure.reason, message: failure.message } }))
    },
  )
}
