import { CloseReason, CloseSessionResult } from '../../gen/push/internal/v1/edge.ts'
import { EdgeLeaseState } from '../../gen/push/internal/v1/registry.ts'
import {
  type ReportItem,
  ReportResult,
  type SessionReplaced,
  type UplinkServiceImplementation,
} from '../../gen/push/internal/v1/uplink.ts'
import { requireEdgeName } from '../../service-kit/caller.ts'
import { invalidField } from '../../service-kit/errors.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import { isPushId } from '../../service-kit/ids.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { edgeNameOf } from '../../service-kit/peer-identity.ts'
import type { EdgeDirectory } from '../dispatch/edge-directory.ts'
import type { EdgeLinks } from '../dispatch/edge-links.ts'
import type { Flushes } from '../dispatch/flush.ts'
import type { LateAnswers } from '../dispatch/late-answers.ts'
import { requireDeviceId } from './devices-service.ts'

/** What the service needs. */
export interface UplinkServiceOptions {
  readonly links: EdgeLinks
  readonly directory: EdgeDirectory
  readonly lateAnswers: Pick<LateAnswers, 'take'>
  readonly flushes: Flushes
  readonly metrics: Metrics
}

const itemCountMax = 256
/** How long the other edge may take to answer a close, in ms. It lets what it has under way finish for 5 s, but answers before that. */
const closeTimeoutMs = 3_000

/** Takes news from edges. */
export function createUplinkService({
  links,
  directory,
  lateAnswers,
  flushes,
  metrics,
}: UplinkServiceOptions): UplinkServiceImplementation<ServedContext> {
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
    const result = await takeItem(item)
    reports.inc({ kind: item?.$case ?? 'unknown', result: resultWords[result] })
    return result
  }

  async function takeItem(item: ReportItem['item']): Promise<ReportResult> {
    switch (item?.$case) {
      case 'sessionReplaced':
        return await closeReplaced(item.value)
      case 'lateAnswer':
        if (!isPushId(item.value.deviceId) || !isPushId(item.value.messageId)) return ReportResult.DONE
        return await lateAnswers.take(item.value).then(
          () => ReportResult.DONE,
          () => ReportResult.RETRY,
        )
      default:
        return ReportResult.NOT_IMPLEMENTED
    }
  }

  return {
    async report({ edgeId, items }, { caller }) {
      requireEdgeName(caller, edgeNameOf(edgeId))
      if (items.length > itemCountMax) {
        throw invalidField('items', `must be at most ${itemCountMax}`)
      }
      return { results: await Promise.all(items.map(take)) }
    },
    async *flushInbox(request, context) {
      requireEdgeName(context.caller, edgeNameOf(request.edgeId))
      requireDeviceId(request.deviceId)
      for (const [field, value] of [
        ['edge_id', request.edgeId],
        ['edge_address', request.edgeAddress],
        ['session_id', request.sessionId],
      ] as const) {
        if (value === '') throw invalidField(field, 'is required')
      }
      for await (const response of flushes.flush(request)) {
        if (context.signal.aborted) return
        yield response
      }
    },
  }
}

const resultWords = {
  [ReportResult.UNSPECIFIED]: 'unspecified',
  [ReportResult.DONE]: 'done',
  [ReportResult.RETRY]: 'retry',
  [ReportResult.NOT_IMPLEMENTED]: 'not_implemented',
} as const satisfies Record<ReportResult, string>
