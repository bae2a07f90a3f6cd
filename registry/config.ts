import {
  address,
  type ConfigOf,
  defineConfig,
  flag,
  milliseconds,
  oneOf,
  path,
  readConfig,
  setting,
  text,
  wholeNumber,
} from '../service-kit/config.ts'
import { isLoopback, parseHostPort } from '../service-kit/listen-address.ts'
import { logLevels } from '../service-kit/log.ts'
import { settingsFileSetting } from '../service-kit/settings-file.ts'
import { plainTextProblems, tlsProblems, tlsSettings } from '../service-kit/tls-settings.ts'
import { leaseTtlMaxMs, leaseTtlMinMs } from './request-checks.ts'

/** Everything that the operator of a registry may set. */
export const registryConfig = defineConfig(
  'registry',
  {
    listenAddress: setting('REGISTRY_LISTEN_ADDRESS', address(), {
      default: '127.0.0.1:7401',
      doc: 'Where edges and routers reach this registry. Port 0 lets the system choose.',
    }),
    metricsAddress: setting('REGISTRY_METRICS_ADDRESS', address(), {
      optional: true,
      doc: 'Where `GET /metrics` is answered. Unset: nowhere.',
    }),
    settingsFile: settingsFileSetting('REGISTRY_'),
    logLevel: setting('REGISTRY_LOG_LEVEL', oneOf(logLevels), { default: 'info', doc: 'The least level that is logged.' }),
    insecure: setting('REGISTRY_INSECURE', flag(), {
      default: false,
      doc: 'Allows plain text beyond this machine: listening without TLS, metrics, and a Cassandra without TLS.',
    }),
    ...tlsSettings('REGISTRY_'),
    reflection: setting('REGISTRY_REFLECTION', flag(), { default: false, doc: 'Answers gRPC server reflection.' }),
    drainGraceMs: setting('REGISTRY_DRAIN_GRACE_MS', milliseconds({ min: 0, max: 300_000 }), {
      default: 5_000,
      doc: 'How long calls under way may take to finish when the registry stops.',
    }),
    maxConnectionAgeMs: setting('REGISTRY_MAX_CONNECTION_AGE_MS', milliseconds({ min: 10_000, max: 86_400_000 }), {
      default: 600_000,
      doc: 'Clients are asked to reconnect after about this time, so that a new registry gets its share of calls.',
    }),
    store: setting('REGISTRY_STORE', oneOf(['cassandra', 'sqlite']), {
      default: 'cassandra',
      doc: '`cassandra` for any number of registries; `sqlite` for one process with everything in a file.',
    }),
    sqlitePath: setting('REGISTRY_SQLITE_PATH', path(), {
      optional: true,
      doc: 'The file of the `sqlite` store; created when it is not there. One process at a time.',
    }),
    cassandraContactPoints: setting('REGISTRY_CASSANDRA_CONTACT_POINTS', text(), {
      default: '127.0.0.1',
      doc: 'Some nodes of the cluster: hosts or host:port, with commas between. The others are found through them.',
    }),
    cassandraPort: setting('REGISTRY_CASSANDRA_PORT', wholeNumber({ min: 1, max: 65_535 }), {
      default: 9042,
      doc: 'The port of contact points that have none, and of the nodes found through them.',
    }),
    cassandraLocalDataCenter: setting(
      'REGISTRY_CASSANDRA_LOCAL_DATA_CENTER',
      text({ maxLength: 100, pattern: { matches: /^[A-Za-z0-9._-]+$/, expected: "a data centre's name of [A-Za-z0-9._-]" } }),
      { default: 'datacenter1', doc: 'The data centre whose nodes are asked; a quorum of them must answer.' },
    ),
    cassandraKeyspace: setting(
      'REGISTRY_CASSANDRA_KEYSPACE',
      text({
        maxLength: 48,
        pattern: { matches: /^[a-z][a-z0-9_]*$/, expected: '1 to 48 characters of [a-z0-9_], a letter first' },
      }),
      { default: 'push', doc: 'Where the tables are. They are created and brought up to date by the registry.' },
    ),
    cassandraCreateKeyspace: setting('REGISTRY_CASSANDRA_CREATE_KEYSPACE', flag(), {
      default: false,
      doc: 'Creates the keyspace when it does not exist. Otherwise a missing one is an error.',
    }),
    cassandraReplicationFactor: setting('REGISTRY_CASSANDRA_REPLICATION_FACTOR', wholeNumber({ min: 1, max: 10 }), {
      default: 3,
      doc: 'Copies in the local data centre, for a keyspace that is created. With fewer than 3 a lost node is a lost registry.',
    }),
    cassandraUser: setting('REGISTRY_CASSANDRA_USER', text({ maxLength: 200 }), {
      optional: true,
      doc: 'Who the registry logs in as. Unset: no login.',
    }),
    cassandraPassword: setting('REGISTRY_CASSANDRA_PASSWORD', text({ maxLength: 200 }), {
      optional: true,
      secret: true,
      doc: 'The password that goes with the user.',
    }),
    cassandraTls: setting('REGISTRY_CASSANDRA_TLS', flag(), {
      default: false,
      doc: 'Reach Cassandra over TLS.',
    }),
    cassandraTlsCaFile: setting('REGISTRY_CASSANDRA_TLS_CA_FILE', path(), {
      optional: true,
      doc: 'Certificates (PEM) of the authorities that nodes must be certified by. Unset: those that Node believes. Read at the start.',
    }),
    cassandraTlsCertFile: setting('REGISTRY_CASSANDRA_TLS_CERT_FILE', path(), {
      optional: true,
      doc: 'Certificate (PEM) that this registry shows to nodes, where they ask for one.',
    }),
    cassandraTlsKeyFile: setting('REGISTRY_CASSANDRA_TLS_KEY_FILE', path(), {
      optional: true,
      doc: 'Private key (PEM) that belongs to that certificate.',
    }),
    cassandraTlsVerifyHost: setting('REGISTRY_CASSANDRA_TLS_VERIFY_HOST', flag(), {
      default: true,
      doc: 'Nodes are known by the address they are dialled by, which must stand in their certificates. Off: any certificate of the authorities will do; for nodes whose certificates name no address, with an authority of their own.',
    }),
    cassandraReadTimeoutMs: setting('REGISTRY_CASSANDRA_READ_TIMEOUT_MS', milliseconds({ min: 500, max: 60_000 }), {
      default: 6_000,
      doc: "Longest wait for one node's answer. To be above `read_request_timeout` and `write_request_timeout` of the servers.",
    }),
    cassandraConnectTimeoutMs: setting('REGISTRY_CASSANDRA_CONNECT_TIMEOUT_MS', milliseconds({ min: 0, max: 3_600_000 }), {
      default: 60_000,
      doc: 'How long a starting registry waits for the cluster before it gives up.',
    }),
    itemsMax: setting('REGISTRY_ITEMS_MAX', wholeNumber({ min: 2_048, max: 1_000_000 }), {
      default: 16_384,
      doc: 'Devices, sessions, messages and receipts in all calls under way. Above a share of it calls are answered RATE_EXCEEDED: receipts first, then the inbox, look-ups, and registrations last.',
    }),
    storeStepsMax: setting('REGISTRY_STORE_STEPS_MAX', wholeNumber({ min: 1, max: 10_000 }), {
      default: 256,
      doc: 'Reads and writes at the store at once, for receipts, the inbox, look-ups and registrations each. More wait.',
    }),
    inboxMessagesMax: setting('REGISTRY_INBOX_MESSAGES_MAX', wholeNumber({ min: 1, max: 500 }), {
      default: 100,
      doc: 'Messages that wait for one device. Counted at every tenth store: each registry may pass it by a few. Then what is of lower priority goes, or the newcomer is dropped.',
    }),
    inboxBytesMax: setting('REGISTRY_INBOX_BYTES_MAX', wholeNumber({ min: 131_072, max: 2_097_152 }), {
      default: 524_288,
      doc: 'Bytes of all messages that wait for one device, counted with them.',
    }),
    inboxCountedDevicesMax: setting('REGISTRY_INBOX_COUNTED_DEVICES_MAX', wholeNumber({ min: 1, max: 10_000_000 }), {
      default: 65_536,
      doc: 'Devices whose room in the inbox is remembered from one count to the next. Of those forgotten every tenth store is counted, at random.',
    }),
    edgeLeasePeriodMs: setting('REGISTRY_EDGE_LEASE_PERIOD_MS', milliseconds({ min: leaseTtlMinMs, max: leaseTtlMaxMs }), {
      default: 30_000,
      doc: 'The lease of an edge that asks for none. Nothing lapses for this long after the store has answered again.',
    }),
    edgeReadPeriodMs: setting('REGISTRY_EDGE_READ_PERIOD_MS', milliseconds({ min: 50, max: 60_000 }), {
      default: 2_000,
      doc: 'How often the leases are read: how late a lapsed edge is noticed.',
    }),
    edgeWatchersMax: setting('REGISTRY_EDGE_WATCHERS_MAX', wholeNumber({ min: 1, max: 100_000 }), {
      default: 1_024,
      doc: 'Open streams of the picture of edges, one a router. Above it RATE_EXCEEDED.',
    }),
  },
  {
    check(config) {
      const problems = [
        ...tlsProblems('REGISTRY_', config),
        ...plainTextProblems(
          'REGISTRY_',
          {
            protected: { REGISTRY_LISTEN_ADDRESS: config.listenAddress },
            plain: { REGISTRY_METRICS_ADDRESS: config.metricsAddress },
          },
          config,
        ),
      ]
      if (config.store === 'sqlite' && config.sqlitePath === undefined) {
        problems.push('REGISTRY_SQLITE_PATH is missing; REGISTRY_STORE=sqlite needs a file')
      }
      if (config.cassandraPassword !== undefined && config.cassandraUser === undefined) {
        problems.push('REGISTRY_CASSANDRA_USER is missing; a password needs a user')
      }
      problems.push(...cassandraTlsProblems(config))
      for (const point of contactPointsOf(config.cassandraContactPoints)) {
        if (parseHostPort(point.includes(':') ? point : `${point}:1`) === undefined) {
          problems.push(`REGISTRY_CASSANDRA_CONTACT_POINTS has "${point}"; expected host or host:port, with commas between`)
        }
      }
      if (config.edgeReadPeriodMs * 3 > config.edgeLeasePeriodMs) {
        problems.push('REGISTRY_EDGE_READ_PERIOD_MS must be at most a third of REGISTRY_EDGE_LEASE_PERIOD_MS')
      }
      return problems
    },
  },
)

/** What the operator has set, checked whole. */
export type RegistryConfig = ConfigOf<typeof registryConfig>

/** Reads the settings of a registry. Throws ConfigError with every problem at once. */
export function readRegistryConfig(env: Readonly<Record<string, string | undefined>>): RegistryConfig {
  return readConfig(registryConfig, env)
}

/** The contact points, taken apart. */
export function contactPointsOf(typed: string): string[] {
  return typed.split(',').map((point) => point.trim())
}

function cassandraTlsProblems(config: {
  readonly store: string
  readonly insecure: boolean
  readonly cassandraContactPoints: string
  readonly cassandraTls: boolean
  readonly cassandraTlsCaFile: string | undefined
  readonly cassandraTlsCertFile: string | undefined
  readonly cassandraTlsKeyFile: string | undefined
}): string[] {
  const { cassandraTls, cassandraTlsCaFile, cassandraTlsCertFile, cassandraTlsKeyFile } = config
  const problems: string[] = []
  if (!cassandraTls && (cassandraTlsCaFile ?? cassandraTlsCertFile ?? cassandraTlsKeyFile) !== undefined)
    problems.push('REGISTRY_CASSANDRA_TLS is not set, though one of its files is; set REGISTRY_CASSANDRA_TLS=true')
  if ((cassandraTlsCertFile === undefined) !== (cassandraTlsKeyFile === undefined))
    problems.push('REGISTRY_CASSANDRA_TLS_CERT_FILE and REGISTRY_CASSANDRA_TLS_KEY_FILE go together')
  const remote = contactPointsOf(config.cassandraContactPoints).find(
    (point) => !isLoopback(point.includes(':') ? point : `${point}:1`),
  )
  if (config.store === 'cassandra' && !cassandraTls && !config.insecure && remote !== undefined)
    problems.push(
      `REGISTRY_CASSANDRA_CONTACT_POINTS has "${remote}", and without TLS anybody could read along; set REGISTRY_CASSANDRA_TLS=true, or set REGISTRY_INSECURE=true`,
    )
  return problems
}
