import type { Command } from 'commander'
import {
  type Edge,
  type EdgeDrain,
  EdgeDrainState,
  EdgeState,
  OperationsServiceDefinition,
} from '../../gen/push/v1/operations.ts'
import { addressOption, type Service, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { drainedShare, drainFields } from '../edge-drain.ts'
import { ExitCode } from '../exit-codes.ts'
import { isoTime, nameOf, printable, table } from '../output.ts'

interface EdgesListOptions {
  json?: boolean
  address?: string
}

// For each page.
const timeoutMs = 10_000
const pageSize = 1_000
// A list that never ends would be a defect of the service; a million edges is more than any fleet has.
const pagesMax = 1_000
/** Edges whose drain is asked for; of more the list says only that they drain. */
const drainsMax = 64
const drainTimeoutMs = 2_000

const help = `
Example:
  push-cli edges list`

export function addEdgesListCommand(edges: Command, context: CliContext): void {
  edges
    .command('list')
    .summary('list the edges and how many devices each holds')
    .description('Lists the edges that hold a lease, with their connections and whether they give signs of life.')
    .option('--json', 'one JSON object per edge')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: EdgesListOptions) => context.exit(await listEdges(options, context)))
}

function listEdges(options: EdgesListOptions, context: CliContext): Promise<ExitCode> {
  const { output } = context
  return withService(context, { address: options.address, timeoutMs }, async (service) => {
    const edges = await allEdges(service, context)
    const drains = await drainsOf(edges, service, context)
    if (options.json) for (const edge of edges) output.data(JSON.stringify(fieldsOf(edge, drains.get(edge.edgeId))))
    else
      for (const line of table(
        headings,
        edges.map((edge) => row(edge, drains.get(edge.edgeId))),
      ))
        output.data(line)
    if (edges.length === 0) output.talk('no edge holds a lease')
    return ExitCode.DONE
  })
}

async function allEdges(service: Service, context: CliContext): Promise<Edge[]> {
  const operations = service.client(OperationsServiceDefinition)
  const edges: Edge[] = []
  let pageToken = ''
  for (let page = 0; page < pagesMax; page += 1) {
    const call = { deadlineMs: timeoutMs, signal: context.interrupted }
    const response = await operations.listEdges({ pageSize, pageToken }, call)
    edges.push(...response.edges)
    pageToken = response.nextPageToken
    if (pageToken === '') return edges
  }
  throw new Error(`the list of edges does not end after ${pagesMax} pages`)
}

/** The drains of those that drain, asked of the edges themselves: a lease says only that they do. One that does not answer has none here. */
async function drainsOf(edges: readonly Edge[], service: Service, context: CliContext): Promise<Map<string, EdgeDrain>> {
  const operations = service.client(OperationsServiceDefinition)
  const drains = new Map<string, EdgeDrain>()
  const asked = edges.filter(({ draining }) => draining).slice(0, drainsMax)
  await Promise.all(
    asked.map(async ({ edgeId }) => {
      const call = { deadlineMs: drainTimeoutMs, signal: context.interrupted }
      const { drain } = await operations.getEdgeDrain({ edgeId }, call).catch(() => ({ drain: undefined }))
      if (drain !== undefined) drains.set(edgeId, drain)
    }),
  )
  return drains
}

const headings = ['EDGE', 'STATE', 'CONNECTIONS', 'LIMIT', 'DRAINING', 'ZONE', 'ADDRESS']

function row(edge: Edge, drain: EdgeDrain | undefined): string[] {
  return [
    edge.edgeId,
    nameOf(EdgeState, edge.state),
    String(edge.connectionCount),
    String(edge.connectionLimit),
    drain !== undefined ? drainCell(drain) : edge.draining ? 'yes' : 'no',
    edge.zone || '-',
    edge.address,
  ].map(printable)
}

function drainCell(drain: EdgeDrain): string {
  return `${nameOf(EdgeDrainState, drain.state).toLowerCase()} ${Math.floor(drainedShare(drain) * 100)} %`
}

function fieldsOf(edge: Edge, drain: EdgeDrain | undefined): object {
  return {
    edge_id: edge.edgeId,
    name: edge.name,
    address: edge.address,
    zone: edge.zone || undefined,
    connection_count: edge.connectionCount,
    connection_limit: edge.connectionLimit,
    draining: edge.draining,
    drain: drain && drainFields(drain),
    state: nameOf(EdgeState, edge.state),
    lease_expire_time: isoTime(edge.leaseExpireTime),
  }
}
