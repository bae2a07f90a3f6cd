/** Inbox and receipts. */
export const inboxMigration = {
  version: 2,
  name: 'inbox, receipts',
  statements: (keyspace: string): string[] => [
    // Every entry is removed by its key sooner or later, and a read of the device steps over all those tombstones. They may go
    // after three hours, as no store is later than that, and compaction looks for them without waiting for other tables.
    `CREATE TABLE IF NOT EXISTS ${keyspace}.inbox (
       device_id text, message_id text,
       message blob, priority int, recovery boolean, accept_time bigint, expire_time bigint, collapse_key text, size int,
       PRIMARY KEY (device_id, message_id)
     ) WITH gc_grace_seconds = 10800
       AND compaction = {'class': 'SizeTieredCompactionStrategy', 'unchecked_tombstone_compaction': 'true',
                         'tombstone_threshold': '0.1', 'tombstone_compaction_interval': '10800'}`,
    // Never deleted, only ended by their TTL: a short grace brings nothing back. One column, so that two writes of one row
    // never mix.
    `CREATE TABLE IF NOT EXISTS ${keyspace}.receipts (
       message_id text, device_id text, state int,
       receipt blob,
       PRIMARY KEY (message_id, device_id, state)
     ) WITH gc_grace_seconds = 10800
       AND compaction = {'class': 'SizeTieredCompactionStrategy', 'unchecked_tombstone_compaction': 'true'}`,
  ],
}
