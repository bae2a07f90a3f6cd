/** Sessions, accounts' devices, edges. */
export const sessionsMigration = {
  version: 1,
  name: 'sessions, account devices, edges',
  statements: (keyspace: string): string[] => [
    // Rows are written and deleted at their epoch and live as long as a connection can. Three hours are longer than any
    // write of a live session is late, and keep the tombstones that a read of the device must step over few.
    `CREATE TABLE IF NOT EXISTS ${keyspace}.device_sessions (
       device_id text, epoch bigint, session_id text,
       inbox_until bigint STATIC,
       edge_id text, edge_address text, account_id text, protocol text, connected_time bigint,
       PRIMARY KEY (device_id, epoch, session_id)
     ) WITH CLUSTERING ORDER BY (epoch DESC, session_id DESC) AND gc_grace_seconds = 10800`,
    `CREATE TABLE IF NOT EXISTS ${keyspace}.account_devices (
       account_id text, device_id text, last_seen_day int,
       PRIMARY KEY (account_id, device_id)
     )`,
    // Never deleted, only ended by its TTL: a short grace brings nothing back.
    `CREATE TABLE IF NOT EXISTS ${keyspace}.edges (
       shard int, edge_id text,
       name text, address text, zone text, connection_count int, connection_limit int, draining boolean,
       PRIMARY KEY (shard, edge_id)
     ) WITH gc_grace_seconds = 10800`,
  ],
}
