import { Metadata } from 'nice-grpc'
import { type DeepPartial, type DrainRequest, EdgeServiceDefinition } from '../../gen/push/internal/v1/edge.ts'
import type { RegistryServiceClient } from '../../gen/push/internal/v1/registry.ts'
import type { EdgeDrain, OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import { PlainTextError, type ServiceTransport } from '../../service-kit/client-transport.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { callErrorOf, invalidField, PushError } from '../../service-kit/errors.ts'
import { type CallBounds, connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import type { EdgeDirectory } from '../dispatch/edge-directory.ts'

/** The calls about drains. */
export type EdgeDrainCalls = Pick<OperationsServiceImplementation, 'drainEdge' | 'getEdgeDrain' | 'abortEdgeDrain'>

/** How long an edge may take to answer, in ms. */
const callDeadlineMs = 5_000
const pageSize = 1_000
// A list that never ends would be a defect of the registry.
const pagesMax = 1_000

/** Passes operators' calls on to the edge that they name. */
export function createEdgeDrainCalls(options: {
  readonly directory: Pick<EdgeDirectory, 'get'>
  readonly lister: Pick<RegistryServiceClient<CallBounds>, 'listEdges'>
  readonly transport?: Pick<ServiceTransport, 'toEdge'>
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}): EdgeDrainCalls {
  const { directory, lister, transport, clock, random, log, metrics } = options

  const addressOf = async (edgeId: string): Promise<string> => {
    if (edgeId === '') throw invalidField('edge_id', 'is required')
    // The picture that is pushed to this router may be older than what ListEdges has just shown to the operator.
    const address = directory.get(edgeId)?.address ?? (await listedAddress(edgeId))
    if (address === undefined) throw unknown(edgeId)
    return address
  }

  const listedAddress = async (edgeId: string): Promise<string | undefined> => {
    try {
      for (let pageToken = '', page = 0; page < pagesMax; page++) {
        const { edges, nextPageToken } = await lister.listEdges({ pageSize, pageToken }, { deadlineMs: callDeadlineMs })
        const found = edges.find((edge) => edge.edgeId === edgeId)
        if (found !== undefined || nextPageToken === '') return found?.address
        pageToken = nextPageToken
      }
      return undefined
    } catch (cause) {
      throw new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer; try again', {}, { cause })
    }
  }

  const connect = (edgeId: string, addresses: string): GrpcConnection => {
    try {
      return connectGrpc({
        addresses,
        ...(transport && { transport: transport.toEdge(edgeId) }),
        log,
        clock,
        random,
        metrics,
      })
    } catch (cause) {
      if (!(cause instanceof PlainTextError)) throw cause
      const words = `this router may not call edge ${edgeId} in plain text; its log tells more`
      throw new PushError('EDGE_UNREACHABLE', words, { edge_id: edgeId }, { cause })
    }
  }

  const call = async (edgeId: string, request: DeepPartial<DrainRequest>): Promise<EdgeDrain> => {
    const addresses = await addressOf(edgeId)
    // Operators call rarely, and the edge may be one that this router has no stream to.
    const connection = connect(edgeId, addresses)
    try {
      const metadata = Metadata({ 'edge-id': edgeId })
      const client = connection.client(EdgeServiceDefinition)
      const { drain } = await client.drain(request, { metadata, deadlineMs: callDeadlineMs })
      if (drain === undefined) throw new PushError('INTERNAL', `edge ${edgeId} does not say how its drain is`)
      return drain
    } catch (cause) {
      if (cause instanceof PushError) throw cause
      const failure = callErrorOf(cause)
      if (failure.reason === 'EDGE_RESTARTED') throw unknown(edgeId)
      if (failure.reason === 'DRAIN_FINAL' || failure.reason === 'INVALID_REQUEST') {
        throw new PushError(failure.reason, failure.message, { edge_id: edgeId }, { cause, violations: failure.violations })
      }
      throw new PushError('EDGE_UNREACHABLE', `edge ${edgeId} does not answer`, { edge_id: edgeId }, { cause })
    } finally {
      connection.close()
    }
  }

  return {
    async drainEdge({ edgeId, duration, ratePerSecond }) {
      const drain = await call(edgeId, { start: true, duration, ratePerSecond })
      log.info('edge drain asked for by operator', { edge_id: edgeId, rate_per_second: ratePerSecond, duration })
      return { drain }
    },
    async getEdgeDrain({ edgeId }) {
      return { drain: await call(edgeId, {}) }
    },
    async abortEdgeDrain({ edgeId }) {
      const drain = await call(edgeId, { abort: true })
      log.info('edge drain aborted by operator', { edge_id: edgeId })
      return { drain }
    },
  }
}

function unknown(edgeId: string): PushError {
  return new PushError('EDGE_UNKNOWN', `no edge ${edgeId} holds a lease; edges list shows those that do`, { edge_id: edgeId })
}
