import { CloseReason, CloseSessionResult } from '../../gen/push/internal/v1/edge.ts'
import { EdgeLeaseState } from '../../gen/push/internal/v1/registry.ts'
import {
  type ReportItem,
  ReportResult,
  type SessionReplaced,
  type UplinkServiceImplementation,
} from '../../gen/push/internal/v1/uplink.ts'
import { PushError } from '../../service-kit/errors.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { EdgeDirectory } from '../dispatch/edge-directory.ts'
import type { EdgeLinks } from '../dispatch/edge-links.ts'
import { notYet } from './message-check.ts'

/** What the service needs. */
export interface UplinkServiceOptions {
  readonly links: EdgeLinks
  readonly directory: EdgeDirectory
  readonly metrics: Metrics
}

const itemCountMax = 256
/** How long the other edge may take to answer a close, in ms. It lets what it has under way finish for 5 s, but answers before that. */
const closeTimeoutMs = 3_000

/** Takes news from edges. */
export function createUplinkService({ links, directory, metrics }: UplinkServiceOptions): UplinkServiceImplementation {
  const reports = metrics.counter('push_router_uplink_items_total', 'News from edges by kind and what became of it', [
    'kind',
    'result',
  ])

  /** Tells the edge of the replaced session. Done once it has answered, whatever it says, or is gone: then the session is gone too. */
  async function closeReplaced(replaced: SessionReplaced): Promise<ReportResult> {
    const row = { edgeId: replaced.edgeId, edgeAddress: replaced.edgeAddress }
    const lapsed = directory.get(row.edgeId)?.state === EdgeLeaseState.LAPSED
    if (links.isGone(row, lapsed)) return ReportResult.DONE
    const answer = await links.to(row).closeSession(
      {
        deviceId: replaced.deviceId,
        sessionId: replaced.sessionId,
        reason: CloseReason.SUPERSEDED,
        replacerSessionId: replaced.replacerSessionId,
        replacerEpoch: replaced.replacerEpoch,
        detail: '',
      },
      closeTimeoutMs,
    )
    if (answer === 'gone' || links.isGone(row, lapsed)) return ReportResult.DONE
    return answer === 'unanswered' || answer === CloseSessionResult.UNSPECIFIED ? ReportResult.RETRY : ReportResult.DONE
  }

  async function take({ item }: ReportItem): Promise<ReportResult> {
    if (item?.$case !== 'sessionReplaced') {
      reports.inc({ kind: item?.$case ?? 'unknown', result: 'not_implemented' })
      return ReportResult.NOT_IMPLEMENTED
    }
    const result = await closeReplaced(item.value)
    reports.inc({ kind: item.$case, result: result === ReportResult.DONE ? 'done' : 'retry' })
    return result
  }

  return {
    async report({ items }) {
      if (items.length > itemCountMax) {
        const description = `must be at most ${itemCountMax}`
        throw new PushError('INVALID_REQUEST', `items ${description}`, {}, { violations: [{ field: 'items', description }] })
      }
      return { results: await Promise.all(items.map(take)) }
    },
    // biome-ignore lint/correctness/useYield: it ends with the error before anything is told
    async *flushInbox() {
      throw notYet('FlushInbox')
    },
  }
}
