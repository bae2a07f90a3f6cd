import { once } from 'node:events'
import process from 'node:process'
import { parseArgs } from 'node:util'
import { cassandraVariable, kafkaVariable, openSharedServers, sayOnStderr } from './shared-servers.ts'

// Keeps real servers running in the foreground, for test runs that should not wait for their own.

const usage = 'usage: node system-tests/servers/main.ts up [--kafka 1|3] [--cassandra 1|3]'

function readCount(name: string, value: string): 1 | 3 {
  if (value === '1') return 1
  if (value === '3') return 3
  throw new Error(`--${name} is "${value}"; expected 1 or 3`)
}

function readArguments(): { kafka: 1 | 3; cassandra: 1 | 3 } {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { kafka: { type: 'string', default: '1' }, cassandra: { type: 'string', default: '1' } },
  })
  if (positionals.length !== 1 || positionals[0] !== 'up') throw new Error(`expected the command "up"`)
  return { kafka: readCount('kafka', values.kafka), cassandra: readCount('cassandra', values.cassandra) }
}

let counts: { kafka: 1 | 3; cassandra: 1 | 3 }
try {
  counts = readArguments()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${usage}\n`)
  process.exit(2)
}

const toldToEnd = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
try {
  const opening = openSharedServers({ ...counts, env: {}, say: sayOnStderr })
  // Ctrl-C while they start: nothing has been handed out yet, and the guardians end whatever runs.
  const servers = await Promise.race([opening, toldToEnd.then(() => process.exit(130))])
  const cassandraList = servers.cassandra.contactPoints.map((host) => `${host}:${servers.cassandra.port}`)
  process.stdout.write(`export ${kafkaVariable}=${servers.kafkaBrokers.join(',')}\n`)
  process.stdout.write(`export ${cassandraVariable}=${cassandraList.join(',')}\n`)
  process.stderr.write('Set these two in another terminal, then `npm run test:servers` uses these servers. Ctrl-C ends them.\n')
  await toldToEnd
  await servers.close()
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
