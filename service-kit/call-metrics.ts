import type { ServerMiddleware } from 'nice-grpc-common'
import { ServerError, Status } from 'nice-grpc-common'
import type { Clock } from './clock.ts'
import type { Metrics } from './metrics.ts'
import { latencyBucketsSeconds } from './metrics.ts'

/**
 * Counts calls by method and status, those under way, and how long unary ones take. To stand outside the error map, so
 * that it sees the status callers get. A call that its caller gave up, or whose deadline passed, counts as CANCELLED.
 */
export function callMetricsMiddleware(metrics: Metrics, clock: Clock): ServerMiddleware {
  const calls = metrics.counter('push_grpc_server_calls_total', 'Calls that have ended, by status', ['method', 'status'])
  const active = metrics.gauge('push_grpc_server_calls_active', 'Calls under way', ['method'])
  const latency = metrics.histogram('push_grpc_server_latency_seconds', 'How long unary calls take', latencyBucketsSeconds, [
    'method',
    'status',
  ])
  return async function* observe(call, context) {
    const method = call.method.path
    const startedAt = clock.monotonic()
    // Also what a stream ends as that is neither finished nor failed: its caller went away.
    let status: Status = Status.CANCELLED
    active.inc({ method })
    try {
      const response = yield* call.next(call.request, context)
      if (!context.signal.aborted) status = Status.OK
      return response
    } catch (error) {
      if (!context.signal.aborted) status = error instanceof ServerError ? error.code : Status.UNKNOWN
      throw error
    } finally {
      active.dec({ method })
      calls.inc({ method, status: Status[status] })
      if (!call.requestStream && !call.responseStream) {
        latency.observe({ method, status: Status[status] }, (clock.monotonic() - startedAt) / 1000)
      }
    }
  }
}
