import process from 'node:process'
import type { TestProject } from 'vitest/node'
import type {} from './provided.ts'
import { openSharedServers, sayOnStderr } from './shared-servers.ts'

/**
 * Runs once before the tests of the project `servers`: one Kafka and one Cassandra for all of them, ended with the run.
 * `npm run servers` keeps a pair running between runs and prints the variables that have it used here.
 */
export default async function setup({ provide }: Pick<TestProject, 'provide'>): Promise<() => Promise<void>> {
  const servers = await openSharedServers({ kafka: 1, cassandra: 1, env: process.env, say: sayOnStderr })
  provide('kafkaBrokers', servers.kafkaBrokers)
  provide('cassandra', servers.cassandra)
  return servers.close
}
