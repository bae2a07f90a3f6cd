import { EdgeLeaseState, type SessionRoute, type SessionRow } from '../../gen/push/internal/v1/registry.ts'
import type { EdgeDirectory } from './edge-directory.ts'
import type { EdgeLinks } from './edge-links.ts'

/**
 * The first of a device's rows, newest first, whose edge is not gone; undefined when there is none. What the directory knows of an edge is newer than what
 * came with the row.
 */
export function usableRow(
  routes: readonly SessionRoute[],
  { directory, links }: { directory: Pick<EdgeDirectory, 'get'>; links: Pick<EdgeLinks, 'isGone'> },
): SessionRow | undefined {
  for (const { row, edgeState } of routes) {
    if (!row) continue
    const state = directory.get(row.edgeId)?.state ?? edgeState
    if (!links.isGone(row, state === EdgeLeaseState.LAPSED)) return row
  }
  return undefined
}
