import type { DeviceSession } from '../../edge/device-session.ts'
import type { SessionRow } from '../../registry/session-store.ts'
import { rowName, type StoreHistory } from './scheduled-store.ts'

/** What was found wrong, by kind. */
export type Finding =
  | 'a session is neither open nor closed'
  | 'two sessions are open and nobody was told'
  | 'the open session has no row'
  | 'all sessions have closed one another'
  | 'a row was left behind'
  | 'a close has ended a session that was the newer one'
  | 'Register has deleted a row'
  | 'Register has put a row below one that it had read'
  | 'a message does not find the open session'
  | 'ghost rows do not heal'

/** One session, as far as it is judged. */
export interface JudgedStay {
  readonly session: DeviceSession | undefined
  /** The device, the network or a clock has ended it: no rule had to. */
  readonly endedFromOutside: boolean
}

/** What is left when everything has come to rest. */
export interface Rest {
  readonly stays: readonly JudgedStay[]
  readonly rows: readonly SessionRow[]
  readonly history: StoreHistory
  /** A close has ended a session that was above its replacer. */
  readonly newerClosed: boolean
}

/** Says what is wrong at rest; all closes have been delivered. */
export function judge({ stays, rows, history, newerClosed }: Rest): Finding[] {
  const findings: Finding[] = []
  const find = (wrong: boolean, finding: Finding) => {
    if (wrong) findings.push(finding)
  }
  const open = stays.filter(({ session }) => session?.writes)
  const isOpen = (row: SessionRow) => open.some(({ session }) => session?.sessionId === row.sessionId)
  find(
    stays.some(({ session }) => !session?.writes && !session?.closed),
    'a session is neither open nor closed',
  )
  find(open.length > 1, 'two sessions are open and nobody was told')
  find(open.length > 0 && !rows.some(isOpen), 'the open session has no row')
  // A row whose session was not told of it may stand above all: then both leave, and the device comes back by itself.
  const allHeard = [...history.inserts.values()].every(({ by }) => by.heard)
  const allOutdone = open.length === 0 && !stays.some(({ endedFromOutside }) => endedFromOutside)
  find(allHeard && allOutdone, 'all sessions have closed one another')
  find(newerClosed, 'a close has ended a session that was the newer one')
  find(history.registerDeletes.length > 0, 'Register has deleted a row')
  find(history.lowInserts.length > 0, 'Register has put a row below one that it had read')
  find(
    rows.some((row) => !isOpen(row) && !isGhost(row, history)),
    'a row was left behind',
  )
  return findings
}

/** Written by an attempt that the edge never heard of again, and only after the edge had removed what there was. */
function isGhost(row: SessionRow, { inserts, removalReads }: StoreHistory): boolean {
  const insert = inserts.get(rowName(row))
  if (insert === undefined || insert.by.heard) return false
  const reads = [...removalReads].filter(([{ sessionIds }]) => sessionIds.includes(row.sessionId))
  return reads.length > 0 && reads.every(([, at]) => at < insert.at)
}
