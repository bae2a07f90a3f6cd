import type { Metrics } from '../../service-kit/metrics.ts'

/** Places of one kind of messages for those whose edge does not answer. */
export interface StuckPlaces {
  /** Takes a place. False when all are taken: the message must not be held then. */
  take(): boolean
  /** Gives one back. */
  release(): void
}

/** The share of what may be in flight that may be held for edges that do not answer. */
export const stuckShare = 0.25

/** Makes places for each kind of messages, bounded by a share of what may be in flight of it. */
export function createStuckPlaces(metrics: Metrics): (kind: string, inFlightMax: number) => StuckPlaces {
  const stuck = metrics.gauge('push_router_stuck', 'Messages held for edges that do not answer', ['lane'])
  const refused = metrics.counter(
    'push_router_stuck_refused_total',
    'Messages that were stored or dropped at once because too many were held for edges that do not answer',
    ['lane'],
  )
  return (lane, inFlightMax) => {
    const countMax = Math.max(1, Math.floor(inFlightMax * stuckShare))
    let count = 0
    return {
      take() {
        if (count >= countMax) {
          refused.inc({ lane })
          return false
        }
        stuck.set({ lane }, ++count)
        return true
      },
      release() {
        stuck.set({ lane }, --count)
      },
    }
  }
}
