import type { RunStatement, Statement } from './statements.ts'

const clock: Statement = { query: 'SELECT toUnixTimestamp(now()) AS now_ms FROM system.local', repeatable: true }

/** The wall clock of the node that answers, in µs since 1970 (whole milliseconds). */
export async function readClockMicros(run: RunStatement): Promise<number> {
  const [row] = await run(clock, [])
  const nowMs: unknown = row?.get('now_ms')
  if (typeof nowMs !== 'bigint') throw new TypeError('Cassandra told no time')
  return Number(nowMs) * 1000
}
