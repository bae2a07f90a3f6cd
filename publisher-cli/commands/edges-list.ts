import type { Command } from 'commander'
import { type Edge, EdgeState, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { addressOption, type Service, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
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
    if (options.json) for (const edge of edges) output.data(JSON.stringify(fieldsOf(edge)))
    else for (const line of table(headings, edges.map(row))) output.data(line)
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

const headings = ['EDGE', 'STATE', 'CONNECTIONS', 'LIMIT', 'DRAINING', 'ZONE', 'ADDRESS']

function row(edge: Edge): string[] {
  return [
    edge.edgeId,
    nameOf(EdgeState, edge.state),
    String(edge.connectionCount),
    String(edge.connectionLimit),
    edge.draining ? 'yes' : 'no',
    edge.zone || '-',
    edge.address,
  ].map(printable)
}

function fieldsOf(edge: Edge): object {
  return {
    edge_id: edge.edgeId,
    name: edge.name,
    address: edge.address,
    zone: edge.zone || undefined,
    connection_count: edge.connectionCount,
    connection_limit: edge.connectionLimit,
    draining: edge.draining,
    state: nameOf(EdgeState, edge.state),
    lease_expire_time: isoTime(edge.leaseExpireTime),
  }
}
