import { defineConfig } from 'vitest/config'

// unit: no server, any machine with Node. servers: what needs a real Kafka or Cassandra, and the whole plane on both.
// conformance: what programs of others, in Go, say of the plane's ports.
// interop: clients that others have written; what needs Go and Chromium.
const jsonReport = process.env.VITEST_JSON

// A machine that stands still for seconds, or does ten times as much as usual, must not make a test fail: what is waited for is
// given far more time than it takes, also where a test names no limit of its own.
const patience = { expect: { poll: { timeout: 10_000 } } }

export default defineConfig({
  test: {
    reporters: jsonReport === undefined ? ['default'] : ['default', ['json', { outputFile: jsonReport }]],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: ['**/node_modules/**', 'dist/**', '**/*.server.test.ts', 'system-tests/**/!(*.unit).test.ts'],
          ...patience,
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: 'interop',
          include: ['system-tests/interop/**/*.test.ts'],
          ...patience,
          testTimeout: 120_000,
          hookTimeout: 120_000,
        },
      },
      {
        test: {
          name: 'servers',
          include: ['**/*.server.test.ts', 'system-tests/**/*.test.ts'],
          exclude: [
            '**/node_modules/**',
            'dist/**',
            '**/*.unit.test.ts',
            'system-tests/conformance/**',
            'system-tests/interop/**',
          ],
          globalSetup: ['system-tests/servers/global-setup.ts'],
          // Each kafkajs client sets one timer that Node warns about.
          execArgv: ['--disable-warning=TimeoutNegativeWarning'],
          // Restarts of servers take their time on a busy machine; what hangs still ends.
          ...patience,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // The servers keep two cores busy as it is; one file at a time keeps their answers quick.
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'conformance',
          include: ['system-tests/conformance/**/*.test.ts'],
          exclude: ['**/*.unit.test.ts'],
          ...patience,
          testTimeout: 300_000,
          // The programs are compiled when they are first used.
          hookTimeout: 35 * 60_000,
          fileParallelism: false,
        },
      },
    ],
  },
})
