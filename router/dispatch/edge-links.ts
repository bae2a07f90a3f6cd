import type { SessionRow } from '../../gen/push/internal/v1/registry.ts'
import type { ServiceTransport } from '../../service-kit/client-transport.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { EdgeLink } from './edge-link.ts'
import { defaultLinkLimits, type EdgeLinkLimits, type LateOutcome, type Link } from './link.ts'

/** What the links need. */
export interface EdgeLinksOptions {
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
  /** How edges are dialled. Default: in plain text, on this machine. */
  readonly transport?: ServiceTransport
  readonly limits?: EdgeLinkLimits
  /** Hears the devices' answers to deliveries that nobody waits for any more. */
  readonly onLateOutcome?: (late: LateOutcome) => void
}

/** The router's links, one per edge it has something for. */
export interface EdgeLinks {
  /** The link to the edge that holds this row; made when there is none. */
  to(row: Pick<SessionRow, 'edgeId' | 'edgeAddress'>): Link
  /**
   * Whether the edge is gone: another process has answered at its address, or its lease has lapsed and no stream to it can be opened.
   * A lapse alone is not enough, since an open stream needs no lease: the store may have stalled.
   */
  isGone(row: Pick<SessionRow, 'edgeId' | 'edgeAddress'>, lapsed: boolean): boolean
  /** Whether any edge that this router has a stream to answers. */
  someAnswers(): boolean
  /** Closes every link. What is unanswered is lost. */
  close(): void
}

/** Edges known to be gone that are remembered. An edge id is minted at each start, so nothing is lost by forgetting the oldest. */
const goneCountMax = 10_000

/** Creates the links. Streams open when something is first sent. */
export function createEdgeLinks(options: EdgeLinksOptions): EdgeLinks {
  const { limits = defaultLinkLimits, metrics } = options
  const links = new Map<string, EdgeLink>()
  const linkCount = metrics.gauge('push_router_edge_links', 'Edges that this router holds a link to')
  const gone = new Set<string>()

  function retire(link: EdgeLink): void {
    links.delete(link.edgeId)
    linkCount.set(links.size)
    link.close()
  }

  return {
    to({ edgeId, edgeAddress }) {
      const known = links.get(edgeId)
      if (known) return known
      const link = new EdgeLink({ ...options, limits, edgeId, address: edgeAddress })
      links.set(edgeId, link)
      linkCount.set(links.size)
      return link
    },
    isGone({ edgeId }, lapsed) {
      if (gone.has(edgeId)) return true
      const link = links.get(edgeId)
      if (!link) return false
      if (link.state === 'gone') {
        gone.add(edgeId)
        const oldest = gone.values().next().value
        if (gone.size > goneCountMax && oldest !== undefined) gone.delete(oldest)
        retire(link)
        return true
      }
      return lapsed && link.state === 'down'
    },
    someAnswers() {
      for (const { state, answering } of links.values()) if (state === 'open' && answering) return true
      return false
    },
    close() {
      for (const link of [...links.values()]) retire(link)
    },
  }
}
