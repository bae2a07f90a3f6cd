import { CloseReason, CloseSessionResult } from '../../gen/push/internal/v1/edge.ts'
import { type EdgeLease, EdgeLeaseState, RegistryServiceDefinition } from '../../gen/push/internal/v1/registry.ts'
import { type Edge, EdgeState, type OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import { callErrorOf, invalidField, PushError } from '../../service-kit/errors.ts'
import type { GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { Log } from '../../service-kit/log.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'
import type { EdgeLinks } from '../dispatch/edge-links.ts'
import type { Lookups } from '../dispatch/lookups.ts'
import type { DeadLetterCalls } from './dead-letters.ts'
import { requireDeviceId } from './devices-service.ts'
import type { EdgeDrainCalls } from './edge-drains.ts'

/** What the service needs. */
export interface OperationsServiceOptions {
  readonly registry: GrpcConnection
  readonly lookups: Lookups
  readonly links: EdgeLinks
  readonly deadLetters: DeadLetterCalls
  readonly edgeDrains: EdgeDrainCalls
  readonly log: Log
}

const callDeadlineMs = 5_000
/** How long an edge may take to close a session that an operator disconnects, in ms. */
const closeTimeoutMs = 6_000
const reasonLengthMax = 100

/** What operators do. */
export function createOperationsService({
  registry,
  lookups,
  links,
  deadLetters,
  edgeDrains,
  log,
}: OperationsServiceOptions): OperationsServiceImplementation {
  const client = registry.client(RegistryServiceDefinition)

  return {
    async listEdges({ pageSize, pageToken }) {
      try {
        const { edges, nextPageToken } = await client.listEdges({ pageSize, pageToken }, { deadlineMs: callDeadlineMs })
        return { edges: edges.map(publicEdge), nextPageToken }
      } catch (cause) {
        const failure = callErrorOf(cause)
        if (failure.reason === 'INVALID_REQUEST') {
          throw new PushError('INVALID_REQUEST', failure.message, {}, { cause, violations: failure.violations })
        }
        throw new PushError('REGISTRY_UNAVAILABLE', 'the registry does not answer; try again', {}, { cause })
      }
    },
    async disconnectDevice({ deviceId, reason }) {
      requireDeviceId(deviceId)
      if (reason.length > reasonLengthMax) {
        throw invalidField('reason', `must be at most ${reasonLengthMax} characters`)
      }
      const { routes } = await lookups.find(deviceId, { allRows: true })
      const answers = await Promise.all(
        routes.map(async ({ row }) => {
          if (!row) return undefined
          const close = {
            deviceId,
            sessionId: row.sessionId,
            reason: CloseReason.DISCONNECTED,
            replacerSessionId: '',
            replacerEpoch: 0,
            detail: reason,
          }
          return await links.to(row).closeSession(close, closeTimeoutMs)
        }),
      )
      const closedCount = answers.filter(
        (answer) => answer === CloseSessionResult.CLOSED || answer === CloseSessionResult.REMEMBERED,
      ).length
      const unansweredCount = answers.filter((answer) => answer === 'unanswered').length
      log.info('device disconnected by operator', {
        device_id: deviceId,
        reason,
        closed_count: closedCount,
        unanswered_count: unansweredCount,
        row_count: routes.length,
      })
      return { closedCount, unansweredCount }
    },
    ...edgeDrains,
    ...deadLetters,
  }
}

const stateByLease = {
  [EdgeLeaseState.UNSPECIFIED]: EdgeState.UNSPECIFIED,
  [EdgeLeaseState.LIVE]: EdgeState.LIVE,
  [EdgeLeaseState.SUSPECT]: EdgeState.SUSPECT,
  [EdgeLeaseState.LAPSED]: EdgeState.LAPSED,
} as const satisfies Record<EdgeLeaseState, EdgeState>

function publicEdge(lease: EdgeLease): Edge {
  return {
    edgeId: lease.edgeId,
    name: lease.name,
    address: lease.address,
    zone: lease.zone,
    connectionCount: lease.connectionCount,
    connectionLimit: lease.connectionLimit,
    draining: lease.draining,
    state: stateByLease[lease.state],
    leaseExpireTime: lease.expireTime > 0 ? timestampFromMicros(lease.expireTime) : undefined,
  }
}
