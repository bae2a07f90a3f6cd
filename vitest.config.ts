import { defineConfig } from 'vitest/config'

// unit: no server, any machine with Node. stores: the suites on real Cassandra and Kafka. system: the whole plane as separate processes.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: ['**/node_modules/**', 'dist/**', '**/*.server.test.ts', 'system-tests/**'],
          testTimeout: 15_000,
        },
      },
    ],
  },
})
