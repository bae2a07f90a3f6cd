import { EdgeLeaseState, type SessionRow } from '../../gen/push/internal/v1/registry.ts'
import type { ServiceTransport } from '../../service-kit/client-transport.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import type { EdgeDirectory } from './edge-directory.ts'
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
  /** What the registry says of edges: links to those that are no more are let go. Default: only what `isGone` is told counts. */
  readonly directory?: Pick<EdgeDirectory, 'get' | 'known'>
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

/** Edges known to be gone, or to be lost, that are remembered. An edge id is minted at each start, so nothing is lost by forgetting the oldest. */
const goneCountMax = 10_000
/** How often links are looked through for edges that are no more, in ms. */
export const sweepPeriodMs = 10_000
/**
 * How long an edge that cannot be reached must be missing from the directory to be let go, in ms. Long enough for a picture that comes from a registry which
 * has not read all leases yet, or that is old because the watch is broken.
 */
export const unlistedMs = 60_000

/** Creates the links. Streams open when something is first sent. */
export function createEdgeLinks(options: EdgeLinksOptions): EdgeLinks {
  const { limits = defaultLinkLimits, metrics, directory, clock } = options
  const links = new Map<string, EdgeLink>()
  const linkCount = metrics.gauge('push_router_edge_links', 'Edges that this router holds a link to')
  /** Another process has answered at their address. */
  const gone = new Set<string>()
  /** Their lease had lapsed and they could not be reached; they are dialled again when their lease is valid again. */
  const lost = new Set<string>()
  /** Since when the directory does not have an edge. */
  const unlistedSince = new Map<string, number>()
  const sweeps = directory && clock.every(sweepPeriodMs, () => sweep(directory))

  function retire(link: EdgeLink): void {
    links.delete(link.edgeId)
    unlistedSince.delete(link.edgeId)
    linkCount.set(links.size)
    link.close()
  }

  /** Whether the link's edge is gone. Then the link is let go, and what it owes is forgotten: an edge that comes back looks all its sessions up. */
  function judge(link: EdgeLink, lapsed: boolean): boolean {
    if (link.state === 'gone') {
      remember(gone, link.edgeId)
      retire(link)
      return true
    }
    if (!lapsed || !link.unreachable) return false
    // Its deliveries are told in their own time that it cannot be reached.
    if (link.unansweredCount > 0) return true
    remember(lost, link.edgeId)
    retire(link)
    return true
  }

  function sweep({ get, known }: Pick<EdgeDirectory, 'get' | 'known'>): void {
    if (!known) return
    for (const edgeId of lost) {
      const lease = get(edgeId)
      if (lease && lease.state !== EdgeLeaseState.LAPSED) lost.delete(edgeId)
    }
    for (const link of [...links.values()]) {
      const lease = get(link.edgeId)
      if (lease) unlistedSince.delete(link.edgeId)
      else if (!unlistedSince.has(link.edgeId)) unlistedSince.set(link.edgeId, clock.monotonic())
      const over = lease ? lease.state === EdgeLeaseState.LAPSED : isOver(unlistedSince.get(link.edgeId))
      // One that has nothing to do is made again when there is something.
      if (!judge(link, over) && over && link.unused) retire(link)
    }
  }

  function isOver(sinceMs: number | undefined): boolean {
    return sinceMs !== undefined && clock.monotonic() - sinceMs >= unlistedMs
  }

  return {
    to({ edgeId, edgeAddress }) {
      const known = links.get(edgeId)
      if (known) return known
      lost.delete(edgeId)
      const link = new EdgeLink({ ...options, limits, edgeId, address: edgeAddress })
      links.set(edgeId, link)
      linkCount.set(links.size)
      return link
    },
    isGone({ edgeId }, lapsed) {
      if (gone.has(edgeId) || (lapsed && lost.has(edgeId))) return true
      const link = links.get(edgeId)
      return link !== undefined && judge(link, lapsed)
    },
    someAnswers() {
      for (const { state, answering } of links.values()) if (state === 'open' && answering) return true
      return false
    },
    close() {
      sweeps?.cancel()
      for (const link of [...links.values()]) retire(link)
    },
  }
}

function remember(edgeIds: Set<string>, edgeId: string): void {
  edgeIds.add(edgeId)
  const oldest = edgeIds.values().next().value
  if (edgeIds.size > goneCountMax && oldest !== undefined) edgeIds.delete(oldest)
}
