import type { CassandraAddresses } from './cassandra.ts'

// What the global set-up gives to every test of the project `servers`, by `inject` from vitest.
declare module 'vitest' {
  interface ProvidedContext {
    /** `host:port` of each broker of the Kafka that all tests of a run share. Use topic names of your own. */
    kafkaBrokers: string[]
    /** The Cassandra that all tests of a run share. Use a keyspace of your own. */
    cassandra: CassandraAddresses
  }
}

export type { CassandraAddresses }
