import { expect, onTestFinished, test } from 'vitest'
import { type DrainRequest, EdgeServiceDefinition, type EdgeServiceImplementation } from '../../gen/push/internal/v1/edge.ts'
import { type EdgeLease, EdgeLeaseState } from '../../gen/push/internal/v1/registry.ts'
import { EdgeDrainState, OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { callErrorOf, PushError } from '../../service-kit/errors.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { createEdgeDrainCalls } from './edge-drains.ts'

const shown = {
  edgeId: 'edge-a',
  startTime: undefined,
  connectionCount: 3,
  state: EdgeDrainState.EVICTING,
  startConnectionCount: 4,
  toldCount: 1,
  ratePerSecond: 2,
  stopping: false,
}

/** A router's calls in front of an edge whose answers the test gives. The directory has `edge-a` there, and `edge-gone` where nobody listens. */
async function calls(answer: (request: DrainRequest) => void = () => {}, listed: 'lists' | 'away' = 'lists') {
  const asked: { meant: string | undefined; request: DrainRequest }[] = []
  const shared = { log: silentLog, metrics: createMetrics(), clock: systemClock }
  const never = async () => {
    throw new PushError('NOT_IMPLEMENTED', 'not part of this test')
  }
  const edge: EdgeServiceImplementation = {
    // biome-ignore lint/correctness/useYield: nobody delivers here.
    async *deliver() {
      await never()
    },
    async drain(request, { metadata }) {
      asked.push({ meant: metadata.get('edge-id'), request })
      answer(request)
      return { connectionCount: 3, drain: shown }
    },
    probe: never,
  }
  const edgeServer = await serveGrpc({
    address: '127.0.0.1:0',
    services: (server) => server.add(EdgeServiceDefinition, edge),
    ...shared,
  })
  onTestFinished(() => edgeServer.drain(0))
  const addresses = new Map([
    ['edge-a', edgeServer.address],
    ['edge-gone', '127.0.0.1:1'],
    ['edge-elsewhere', '10.0.0.1:7402'],
  ])
  const directory = {
    get(edgeId: string): EdgeLease | undefined {
      const address = addresses.get(edgeId)
      return address === undefined ? undefined : { ...lease, edgeId, address }
    },
  }
  const lister = {
    /** Two pages, of which the second has an edge that the directory does not know yet. */
    async listEdges({ pageToken }: { pageToken?: string }) {
      if (listed === 'away') throw new Error('away')
      if (pageToken === '') return { edges: [], nextPageToken: 'more' }
      return { edges: [{ ...lease, edgeId: 'edge-new', address: edgeServer.address }], nextPageToken: '' }
    },
  }
  const drains = createEdgeDrainCalls({ directory, lister, random: systemRandom, ...shared })
  const notHere = {
    listEdges: never,
    disconnectDevice: never,
    listDeadLetters: never,
    getDeadLetter: never,
    replayDeadLetters: never,
  }
  const router = await serveGrpc({
    address: '127.0.0.1:0',
    services: (server) => server.add(OperationsServiceDefinition, { ...notHere, purgeDeadLetters: never, ...drains }),
    ...shared,
  })
  onTestFinished(() => router.drain(0))
  const connection = connectGrpc({ addresses: router.address, log: silentLog, clock: systemClock })
  onTestFinished(() => connection.close())
  return { client: connection.client(OperationsServiceDefinition), asked }
}

const lease = {
  name: 'edge',
  zone: '',
  connectionCount: 0,
  connectionLimit: 0,
  draining: false,
  state: EdgeLeaseState.LIVE,
  expireTime: 0,
}

test('each call reaches the edge that it names, with what it asks for', async () => {
  const { client, asked } = await calls()
  expect(await client.drainEdge({ edgeId: 'edge-a', ratePerSecond: 5 })).toEqual({ drain: shown })
  await client.drainEdge({ edgeId: 'edge-a', duration: { seconds: 60, nanos: 0 } })
  expect(await client.getEdgeDrain({ edgeId: 'edge-a' })).toEqual({ drain: shown })
  expect(await client.abortEdgeDrain({ edgeId: 'edge-a' })).toEqual({ drain: shown })
  const nothing = { start: false, abort: false, duration: undefined, ratePerSecond: 0 }
  expect(asked).toEqual([
    { meant: 'edge-a', request: { ...nothing, start: true, ratePerSecond: 5 } },
    { meant: 'edge-a', request: { ...nothing, start: true, duration: { seconds: 60, nanos: 0 } } },
    { meant: 'edge-a', request: nothing },
    { meant: 'edge-a', request: { ...nothing, abort: true } },
  ])
})

test.each([
  ['no edge', '', 'INVALID_REQUEST'],
  ['an edge without a lease', 'edge-x', 'EDGE_UNKNOWN'],
  ['an edge that does not answer', 'edge-gone', 'EDGE_UNREACHABLE'],
  ['an edge that may not be called in plain text', 'edge-elsewhere', 'EDGE_UNREACHABLE'],
])('%s: the call says so', async (_, edgeId, reason) => {
  const { client, asked } = await calls()
  for (const call of [client.drainEdge, client.getEdgeDrain, client.abortEdgeDrain]) {
    const failure = await call({ edgeId }).catch((error: unknown) => error)
    expect(callErrorOf(failure)).toMatchObject({ reason })
  }
  expect(asked).toEqual([])
})

test.each([
  ['EDGE_RESTARTED', 'EDGE_UNKNOWN'],
  ['DRAIN_FINAL', 'DRAIN_FINAL'],
  ['INVALID_REQUEST', 'INVALID_REQUEST'],
  ['INTERNAL', 'EDGE_UNREACHABLE'],
] as const)('what the edge refuses with %s is answered %s', async (said, reason) => {
  const { client } = await calls(() => {
    throw new PushError(
      said,
      'no',
      {},
      { violations: said === 'INVALID_REQUEST' ? [{ field: 'duration', description: 'too long' }] : [] },
    )
  })
  const failure = await client.drainEdge({ edgeId: 'edge-a' }).catch((error: unknown) => error)
  const violations = said === 'INVALID_REQUEST' ? [{ field: 'duration', description: 'too long' }] : []
  expect(callErrorOf(failure)).toMatchObject({ reason, violations })
})

test('an edge that the registry lists is reached, though this router has not heard of it yet', async () => {
  const { client, asked } = await calls()
  await client.drainEdge({ edgeId: 'edge-new' })
  expect(asked).toMatchObject([{ meant: 'edge-new' }])
})

test('while the registry is away no edge is called unknown', async () => {
  const { client } = await calls(undefined, 'away')
  const failure = await client.drainEdge({ edgeId: 'edge-x' }).catch((error: unknown) => error)
  expect(callErrorOf(failure)).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
})
