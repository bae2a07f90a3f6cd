import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { SqliteDatabase } from './database.ts'

/** How often the sweep looks for rows that have ended. */
export const sweepPeriodMs = 1000
/** Most rows that one sweep removes from one table, so that it never holds up the event loop for long. */
export const sweptRowsMax = 500

/** The tables whose rows end at `ends_at`, with their primary keys. */
const keys = {
  device_sessions: 'device_id, epoch, session_id',
  session_tombstones: 'device_id, epoch, session_id',
  device_hints: 'device_id',
  account_devices: 'account_id, device_id',
  session_takeovers: 'device_id, session_id',
  edges: 'edge_id',
  inbox: 'device_id, message_id',
  inbox_tombstones: 'device_id, message_id',
  receipts: 'message_id, device_id, state',
} as const

/** Removes rows and tombstones that have ended, a bounded number each second. Reads never see them, swept or not. */
export function startSweep({
  database,
  clock,
  log,
  metrics,
}: {
  database: SqliteDatabase
  clock: Clock
  log: Log
  metrics: Metrics
}): {
  close(): void
} {
  const swept = metrics.counter('push_registry_sqlite_swept_rows_total', 'Rows and tombstones removed after they had ended', [
    'table',
  ])
  const statements = Object.entries(keys).map(([table, key]) => ({
    table,
    statement: database.connection.prepare(
      `DELETE FROM ${table} WHERE (${key}) IN (SELECT ${key} FROM ${table} WHERE ends_at <= ? ORDER BY ends_at LIMIT ${sweptRowsMax})`,
    ),
  }))
  const sweep = () => {
    const now = clock.now()
    return database.write(() => {
      for (const { table, statement } of statements) {
        const { changes } = statement.run(now)
        if (changes > 0) swept.inc({ table }, Number(changes))
      }
    })
  }
  const timer = clock.every(sweepPeriodMs, () => {
    sweep().catch((cause) => log.warn('sweep of ended rows failed', { cause }))
  })
  return { close: () => timer.cancel() }
}
