import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { RegistryStores } from '../stores.ts'
import { openSqliteDatabase } from './database.ts'
import { createSqliteEdgeStore } from './edge-store.ts'
import { createSqliteInboxStore } from './inbox-store.ts'
import { createSqliteReceiptStore } from './receipt-store.ts'
import { createSqliteSessionStore } from './session-store.ts'
import { startSweep } from './sweep.ts'

/** Opens the embedded stores in one file. Errors are those of `openSqliteDatabase`. */
export function openSqliteStores(options: { path: string; clock: Clock; log: Log; metrics: Metrics }): RegistryStores {
  const { path, clock, log, metrics } = options
  const database = openSqliteDatabase(path, metrics)
  const sweep = startSweep({ database, clock, log, metrics })
  const close = async () => {
    sweep.close()
    await database.close()
  }
  return {
    sessions: { ...createSqliteSessionStore(database, clock), close },
    edges: { ...createSqliteEdgeStore(database, clock), close },
    inbox: { ...createSqliteInboxStore(database, clock), close },
    receipts: { ...createSqliteReceiptStore(database, clock), close },
    close,
  }
}
