/** Which sessions have lately taken the place of others. */
export const takeoversMigration = {
  version: 3,
  name: 'session takeovers',
  statements: (keyspace: string): string[] => [
    // Never deleted, only ended by its TTL of minutes: a short grace brings nothing back, and keeps what a device that is never
    // at rest leaves behind small.
    `CREATE TABLE IF NOT EXISTS ${keyspace}.session_takeovers (
       device_id text, session_id text, noted boolean,
       PRIMARY KEY (device_id, session_id)
     ) WITH gc_grace_seconds = 600`,
  ],
}
