import type { SessionRow } from '../gen/push/internal/v1/registry.ts'
import type { UplinkServiceClient } from '../gen/push/internal/v1/uplink.ts'
import { ReportResult, type SessionReplaced } from '../gen/push/internal/v1/uplink.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import { createBatcher } from '../service-kit/batcher.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import type { SessionOrder } from './session.ts'

/** Has replaced sessions on other edges told, through any router. */
export interface ReplacedReports {
  /** Repeats it until a router says done, at most 60 s; then it is counted and given up. */
  report(row: SessionRow, replacer: SessionOrder): void
  readonly size: number
  /** Lets those under way end for `graceMs`, then gives them up. */
  close(graceMs: number): Promise<void>
}

/** How long one is repeated. */
export const reportTimeoutMs = 60_000
/** Most that are under way; one more is given up at once. */
export const reportsMax = 65_536

const batchMax = 256
const callsMax = 4
const callTimeoutMs = 10_000
const retryBaseMs = 250
const retryCapMs = 5_000

export function createReplacedReports(options: {
  readonly uplink: Pick<UplinkServiceClient<CallBounds>, 'report'>
  readonly edgeId: string
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
  readonly activeMax?: number
}): ReplacedReports {
  const { uplink, edgeId, clock, random, log, metrics, activeMax = reportsMax } = options
  const active = new Set<Promise<void>>()
  const stopped = new AbortController()

  const batcher = createBatcher<SessionReplaced, ReportResult>({
    async runBatch(batch) {
      const items = batch.map((value) => ({ item: { $case: 'sessionReplaced' as const, value } }))
      const { results } = await uplink.report({ edgeId, items }, { deadlineMs: callTimeoutMs, signal: stopped.signal })
      return batch.map((_, index) => results[index] ?? ReportResult.RETRY)
    },
    maxBatch: batchMax,
    maxInFlight: callsMax,
    maxQueued: activeMax,
  })

  const finish = (result: string, item: SessionReplaced) => {
    metrics.replacedReports.inc({ result })
    if (result === 'done') return
    log.warn('a replaced session was not told', {
      result,
      device_id: item.deviceId,
      session_id: item.sessionId,
      edge_id: item.edgeId,
    })
  }

  const repeat = async (item: SessionReplaced): Promise<void> => {
    const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random })
    const giveUpAt = clock.monotonic() + reportTimeoutMs
    while (!stopped.signal.aborted) {
      // A call that failed says as little as RETRY; which router is away is the client's to log.
      const result = await batcher.run(item).catch(() => ReportResult.RETRY)
      if (result === ReportResult.DONE) return finish('done', item)
      if (result === ReportResult.NOT_IMPLEMENTED) return finish('not_implemented', item)
      const waitMs = retryBaseMs + backoff.next()
      if (clock.monotonic() + waitMs >= giveUpAt) return finish('given_up', item)
      await clock.sleep(waitMs, stopped.signal).catch(() => {})
    }
    finish('given_up', item)
  }

  return {
    report(row, replacer) {
      const item = {
        deviceId: row.deviceId,
        sessionId: row.sessionId,
        edgeId: row.edgeId,
        edgeAddress: row.edgeAddress,
        replacerSessionId: replacer.sessionId,
        replacerEpoch: replacer.epoch,
      }
      if (active.size >= activeMax || stopped.signal.aborted) return finish('given_up', item)
      const under = repeat(item).finally(() => {
        active.delete(under)
        metrics.replacedActive.set(active.size)
      })
      active.add(under)
      metrics.replacedActive.set(active.size)
    },
    get size() {
      return active.size
    },
    async close(graceMs) {
      const timer = clock.after(graceMs, () => stopped.abort())
      while (active.size > 0) await Promise.all(active)
      timer.cancel()
      stopped.abort()
    },
  }
}
