import { type Command, InvalidArgumentError } from 'commander'
import { type EdgeDrain, EdgeDrainState, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { durationFromMs } from '../../service-kit/time.ts'
import { addressOption, type Service, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { parseDurationMs } from '../durations.ts'
import { drainCallTimeoutMs, drainFields, drainSentence, followDrain } from '../edge-drain.ts'
import { ExitCode } from '../exit-codes.ts'
import { UsageError } from '../usage-error.ts'

interface EdgesDrainOptions {
  rate?: number
  over?: number
  wait?: boolean
  show?: boolean
  abort?: boolean
  json?: boolean
  address?: string
}

const help = `
Examples:
  push-cli edges drain edge-1-x7k2m9qa --over 5m --wait
  push-cli edges drain edge-1-x7k2m9qa --rate 200
  push-cli edges drain edge-1-x7k2m9qa --abort

Again with another --rate or --over changes the pace of the drain that runs. The edge's process stays, not ready, until it is stopped. Ctrl-C
while it waits ends the command, not the drain. Ends with 7 when the drain that --wait waits for has been taken back.`

export function addEdgesDrainCommand(edges: Command, context: CliContext): void {
  edges
    .command('drain')
    .summary('send the devices of an edge elsewhere')
    .description('Asks the devices of an edge, one after the other, to connect elsewhere, and takes no new ones.')
    .argument('<edge>', 'its id, as edges list prints it')
    .option('--rate <n>', 'so many devices a second', parseRate)
    .option('--over <duration>', "within this time (default, and without --rate: the edge's own setting)", parseDurationMs)
    .option('--wait', 'show how far it is until all have gone')
    .option('--show', 'only say how far it is')
    .option('--abort', 'take the drain back; who is still there may stay')
    .option('--json', 'the drain as one JSON object')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (edgeId: string, options: EdgesDrainOptions) => context.exit(await drainEdge(edgeId, options, context)))
}

async function drainEdge(edgeId: string, options: EdgesDrainOptions, context: CliContext): Promise<ExitCode> {
  const { rate, over, wait, show, abort } = options
  const paced = rate !== undefined || over !== undefined
  if (rate !== undefined && over !== undefined) throw new UsageError('--rate and --over are two ways to say the same; give one')
  if (abort && (paced || wait || show)) throw new UsageError('--abort goes with no --rate, --over, --wait or --show')
  if (show && paced) throw new UsageError('--show changes nothing, so it goes with no --rate or --over')
  const { output } = context
  let waiting = false
  const exitCode = await withService(context, { address: options.address, timeoutMs: drainCallTimeoutMs }, async (service) => {
    let drain = await call(service, edgeId, options, context)
    if (wait) {
      output.talk(drainSentence(drain))
      waiting = true
      drain = await followDrain(service, drain, context)
      waiting = false
    }
    output.data(options.json ? JSON.stringify(drainFields(drain)) : drainSentence(drain))
    return wait && drain.state !== EdgeDrainState.GONE ? ExitCode.SOME_FAILED : ExitCode.DONE
  })
  if (waiting) output.talk('the drain goes on; --show says how far it is, --abort takes it back')
  return exitCode
}

async function call(service: Service, edgeId: string, options: EdgesDrainOptions, context: CliContext): Promise<EdgeDrain> {
  const operations = service.client(OperationsServiceDefinition)
  const bounds = { deadlineMs: drainCallTimeoutMs, signal: context.interrupted }
  const { drain } = options.abort
    ? await operations.abortEdgeDrain({ edgeId }, bounds)
    : options.show
      ? await operations.getEdgeDrain({ edgeId }, bounds)
      : await operations.drainEdge(
          {
            edgeId,
            ...(options.rate !== undefined && { ratePerSecond: options.rate }),
            ...(options.over !== undefined && { duration: durationFromMs(options.over) }),
          },
          bounds,
        )
  if (drain === undefined) throw new Error('the service does not say how the drain is')
  return drain
}

function parseRate(text: string): number {
  const rate = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || rate < 0.1 || rate > 100_000) {
    throw new InvalidArgumentError('Expected devices a second, from 0.1 to 100000.')
  }
  return rate
}
