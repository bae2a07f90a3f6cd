import type { Metrics } from '../../service-kit/metrics.ts'

/** Places of one kind of messages for those whose edge does not answer. */
export interface StuckPlaces {
  /** Takes a place. False when all are taken: the message must not be held then. */
  take(): boolean
  /** Whether whoever has a place may keep it. False when more are taken than there are: it is given back with this call. */
  keep(): boolean
  /** Gives one back. */
  release(): void
}

interface StuckPlacesOptions {
  /** Whether any edge answers. While none does, nobody is harmed by those that are held, and places have no bound of their own. */
  readonly someEdgeAnswers: () => boolean
  readonly metrics: Metrics
}

/** The share of what may be in flight that may be held for edges that do not answer, while others do. */
export const stuckShare = 0.25

/** Makes places for each kind of messages, bounded by a share of what may be in flight of it. */
export function createStuckPlaces(options: StuckPlacesOptions): (kind: string, inFlightMax: number) => StuckPlaces {
  const { someEdgeAnswers, metrics } = options
  const stuck = metrics.gauge('push_router_stuck', 'Messages held for edges that do not answer', ['lane'])
  const refused = metrics.counter(
    'push_router_stuck_refused_total',
    'Messages that were stored or dropped because too many were held for edges that do not answer',
    ['lane'],
  )
  return (lane, inFlightMax) => {
    const countMax = Math.max(1, Math.floor(inFlightMax * stuckShare))
    let count = 0
    return {
      take() {
        if (count >= countMax && someEdgeAnswers()) {
          refused.inc({ lane })
          return false
        }
        stuck.set({ lane }, ++count)
        return true
      },
      keep() {
        if (count <= countMax || !someEdgeAnswers()) return true
        refused.inc({ lane })
        stuck.set({ lane }, --count)
        return false
      },
      release() {
        stuck.set({ lane }, --count)
      },
    }
  }
}
