import { CloseCode } from '../gen/push/v1/device.ts'
import type { Random } from './random.ts'

/** Bounds of the back-off between attempts to connect. All in milliseconds. */
export interface BackoffBounds {
  /** The first wait is at most this long; each further failure doubles the bound. Default 1,000. */
  readonly baseMs: number
  /** No wait of the plain back-off is longer. Default 60,000. */
  readonly capMs: number
  /** A session that was open for so long sets the back-off to its start. Default 30,000. */
  readonly stableMs: number
}

export const defaultBackoff: BackoffBounds = { baseMs: 1_000, capMs: 60_000, stableMs: 30_000 }

/** How a connection ended. */
export interface Ending {
  /** WebSocket close code; 1006 when there was none. */
  readonly code: number
  /** How long the session was open; 0 when it never was. */
  readonly openMs: number
  /** What is left until the slot that a goaway gave; undefined without one. 0 or less: the slot has begun. */
  readonly slotInMs: number | undefined
  /** An attempt of this very process that came to nothing may have registered a newer session all the same. */
  readonly ownAttempt: boolean
}

/** Decides when to come back after a connection ended. Keeps count of the endings in a row; acts on nothing. */
export interface ReconnectPolicy {
  /** Whole milliseconds to wait. Not to be asked about a final close. */
  after(ending: Ending): number
}

const supersededRangeMs = { from: 30_000, to: 60_000 }
const duplicateRangeMs = { from: 300_000, to: 600_000 }
// An edge that is full, or cannot register, is asked again no sooner than this, however few the failures were.
const laterMinMs = 5_000
const laterSpreadMinMs = 10_000

export function createReconnectPolicy(random: Random, bounds: BackoffBounds = defaultBackoff): ReconnectPolicy {
  let failureCount = 0
  const within = (range: { from: number; to: number }) => range.from + random.next() * (range.to - range.from)

  function waitMs(ending: Ending): number {
    if (ending.openMs >= bounds.stableMs) failureCount = 0
    // Doubling stops mattering long before 2^30.
    const boundMs = Math.min(bounds.capMs, bounds.baseMs * 2 ** Math.min(failureCount, 30))
    failureCount += 1
    // The slot is this device's turn among all that were told to leave: neither sooner nor later.
    if (ending.slotInMs !== undefined && ending.slotInMs > 0) return ending.slotInMs
    switch (ending.code) {
      case CloseCode.SUPERSEDED:
        // The pause keeps two processes with one id from driving each other away. This one has only been in its own way.
        return ending.ownAttempt ? random.next() * boundMs : within(supersededRangeMs)
      case CloseCode.DUPLICATE_IDENTITY:
        return within(duplicateRangeMs)
      case CloseCode.TRY_AGAIN_LATER:
        return laterMinMs + random.next() * Math.max(boundMs, laterSpreadMinMs)
      default:
        return random.next() * boundMs
    }
  }

  return { after: (ending) => Math.round(waitMs(ending)) }
}

/** 4500 to 4999: coming back is of no use until something changes. */
export function isFinalClose(code: number): boolean {
  return code >= 4500 && code <= 4999
}
