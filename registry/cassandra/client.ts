import { Client, metrics as driverMetrics, errors, policies, types } from 'cassandra-driver'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { type DialTls, isCertificateError } from '../../service-kit/dial-tls.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { keepStreamsApart } from './driver-streams.ts'

/** Where the cluster is and how long to wait for it. */
export interface CassandraSettings {
  /** host or host:port; `port` is for those without one. */
  readonly contactPoints: readonly string[]
  readonly port: number
  readonly localDataCenter: string
  readonly keyspace: string
  /** Create the keyspace when it is not there. Else a missing one is an error. */
  readonly createKeyspace: boolean
  /** Copies in the local data centre, for a keyspace that is created. */
  readonly replicationFactor: number
  readonly user: string | undefined
  readonly password: string | undefined
  /** Over TLS; with `verifyHost` each node's certificate must have the address it is dialled by. Undefined: plain text. */
  readonly tls?: (DialTls & { readonly verifyHost: boolean }) | undefined
  /** Longest wait for one host's answer. To be above the server's own timeouts, so that it is the server that gives up. */
  readonly readTimeoutMs: number
  /** Longest wait for the cluster at the start. */
  readonly connectTimeoutMs: number
}

/** A second host is asked after this time, and a third after twice of it. */
const speculativeDelayMs = 50
const speculativeCountMax = 2
const reconnectDelayMinMs = 250
const reconnectDelayMaxMs = 10_000

/** The options of the driver. */
export function driverOptions(settings: CassandraSettings): ConstructorParameters<typeof Client>[0] {
  const { user, password } = settings
  return {
    contactPoints: settings.contactPoints.map((point) => (point.includes(':') ? point : `${point}:${settings.port}`)),
    localDataCenter: settings.localDataCenter,
    protocolOptions: { port: settings.port },
    ...(settings.tls && { sslOptions: sslOptionsOf(settings.tls) }),
    ...(user === undefined ? {} : { credentials: { username: user, password: password ?? '' } }),
    queryOptions: { consistency: types.consistencies.localQuorum, prepare: true },
    socketOptions: { readTimeout: settings.readTimeoutMs, connectTimeout: 5000 },
    encoding: { useBigIntAsLong: true, useUndefinedAsUnset: false },
    policies: {
      speculativeExecution: new policies.speculativeExecution.ConstantSpeculativeExecutionPolicy(
        speculativeDelayMs,
        speculativeCountMax,
      ),
      // The default waits up to ten minutes before it looks again for a host that was down.
      reconnection: new policies.reconnection.ExponentialReconnectionPolicy(reconnectDelayMinMs, reconnectDelayMaxMs, false),
      // Timestamps are ours (epochs) or the server's, never this machine's clock.
      timestampGeneration: null as unknown as policies.timestampGeneration.TimestampGenerator,
    },
  }
}

function sslOptionsOf({ verifyHost, ...tls }: NonNullable<CassandraSettings['tls']>) {
  return { ...tls, rejectUnauthorized: true, ...(!verifyHost && { checkServerIdentity: () => undefined }) }
}

/** Connects, trying again until `connectTimeoutMs` is over. */
export async function connectCassandra(
  settings: CassandraSettings,
  { clock, random, log, metrics }: { clock: Clock; random: Random; log: Log; metrics: Metrics },
): Promise<Client> {
  keepStreamsApart()
  const backoff = createBackoff({ baseMs: 250, capMs: 5000, random })
  const counted = countDriverEvents(metrics)
  const giveUpAt = clock.monotonic() + settings.connectTimeoutMs
  for (;;) {
    const client = new Client({ ...driverOptions(settings), metrics: counted })
    client.on('log', (level: string, what: string, message: string) => {
      if (level === 'error' || level === 'warning') log.warn('cassandra driver', { what, message })
    })
    try {
      await client.connect()
      return client
    } catch (cause) {
      await client.shutdown()
      const where = settings.contactPoints.join(', ')
      const mendable = mendableProblem(cause, where)
      if (mendable !== undefined) throw new StartError(mendable, { cause })
      if (clock.monotonic() >= giveUpAt) {
        throw new StartError(
          `Cassandra at ${where} did not answer for ${settings.connectTimeoutMs} ms; check REGISTRY_CASSANDRA_CONTACT_POINTS and ` +
            `REGISTRY_CASSANDRA_LOCAL_DATA_CENTER (${settings.localDataCenter})`,
          { cause },
        )
      }
      log.warn('cassandra does not answer yet', { contact_points: where, cause })
    }
    await clock.sleep(backoff.next())
  }
}

/** What waiting does not mend, told by the settings that do. */
function mendableProblem(error: unknown, where: string): string | undefined {
  const told = error instanceof errors.NoHostAvailableError ? Object.values(error.innerErrors) : [error]
  // A node that cannot look users up at the moment says so in other words.
  if (told.some((one) => one instanceof errors.AuthenticationError && /incorrect|not set|does not exist/i.test(one.message)))
    return `Cassandra at ${where} refuses the login of this registry; check REGISTRY_CASSANDRA_USER and REGISTRY_CASSANDRA_PASSWORD`
  if (told.some((one) => isCertificateError(one)))
    return (
      `Cassandra at ${where} has a certificate that this registry does not believe; check REGISTRY_CASSANDRA_TLS_CA_FILE, and whether ` +
      `the nodes' addresses stand in their certificates (REGISTRY_CASSANDRA_TLS_VERIFY_HOST)`
    )
  return undefined
}

/** Counts what the driver does by itself about slow and broken hosts. */
export function countDriverEvents(metrics: Metrics): driverMetrics.ClientMetrics {
  const events = metrics.counter(
    'push_registry_cassandra_driver_events_total',
    'What the driver did about slow and broken hosts',
    ['event'],
  )
  const count = (event: string) => () => events.inc({ event })
  const nothing = () => {}
  const retry = count('retry')
  // The driver insists on an instance of its own class.
  return Object.assign(new driverMetrics.DefaultMetrics(), {
    onAuthenticationError: count('authentication_error'),
    onClientTimeoutError: count('client_timeout'),
    onClientTimeoutRetry: retry,
    onConnectionError: count('connection_error'),
    onIgnoreError: nothing,
    onOtherError: count('other_error'),
    onOtherErrorRetry: retry,
    onReadTimeoutError: count('read_timeout'),
    onReadTimeoutRetry: retry,
    onResponse: nothing,
    onSpeculativeExecution: count('speculative_execution'),
    onSuccessfulResponse: nothing,
    onUnavailableError: count('unavailable'),
    onUnavailableRetry: retry,
    onWriteTimeoutError: count('write_timeout'),
    onWriteTimeoutRetry: retry,
  })
}
