import {
  address,
  addressList,
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
import { tokenSecretBytesMin } from '../service-kit/jwt-tokens.ts'
import { logLevels } from '../service-kit/log.ts'
import { settingsFileSetting } from '../service-kit/settings-file.ts'
import { plainTextProblems, tlsProblems, tlsSettings } from '../service-kit/tls-settings.ts'
import { queueProblems, queueSettings } from './queue/settings.ts'

/** Everything that the operator of a router may set. */
export const routerConfig = defineConfig(
  'router',
  {
    listenAddress: setting('ROUTER_LISTEN_ADDRESS', address(), {
      default: '127.0.0.1:7400',
      doc: 'Where publishers, operators and edges reach this router. Port 0 lets the system choose.',
    }),
    registryAddresses: setting('ROUTER_REGISTRY_ADDRESSES', addressList(), {
      default: '127.0.0.1:7401',
      doc: 'The registries; calls go round all that answer.',
    }),
    metricsAddress: setting('ROUTER_METRICS_ADDRESS', address(), {
      optional: true,
      doc: 'Where `GET /metrics` is answered. Unset: nowhere.',
    }),
    settingsFile: settingsFileSetting('ROUTER_'),
    logLevel: setting('ROUTER_LOG_LEVEL', oneOf(logLevels), { default: 'info', doc: 'The least level that is logged.' }),
    insecure: setting('ROUTER_INSECURE', flag(), {
      default: false,
      doc: 'Allows plain text beyond this machine: without TLS to listen and to dial registries and edges, metrics, and a Kafka without TLS.',
    }),
    ...tlsSettings('ROUTER_'),
    policyFile: setting('ROUTER_POLICY_FILE', path(), {
      optional: true,
      doc: 'What each publisher and operator may do, YAML or JSON. Read again when it changes, and at SIGHUP. Required with TLS; without it everybody may do everything.',
    }),
    jwtSecret: setting('ROUTER_JWT_SECRET', text({ maxLength: 4_096 }), {
      optional: true,
      secret: true,
      doc: `Secret shared with the issuer of tokens of publishers and operators (HS256), at least ${tokenSecretBytesMin} bytes. With it callers may come without a certificate. Needs TLS. Another secret than that of the devices' tokens.`,
    }),
    jwtIssuer: setting('ROUTER_JWT_ISSUER', text({ maxLength: 256 }), {
      optional: true,
      doc: 'Required `iss` of these tokens, when set.',
    }),
    jwtAudience: setting('ROUTER_JWT_AUDIENCE', text({ maxLength: 256 }), {
      default: 'push-router',
      doc: 'Required `aud` of these tokens, so that a token made for something else is nothing here.',
    }),
    reflection: setting('ROUTER_REFLECTION', flag(), { default: false, doc: 'Answers gRPC server reflection.' }),
    drainGraceMs: setting('ROUTER_DRAIN_GRACE_MS', milliseconds({ min: 0, max: 300_000 }), {
      default: 15_000,
      doc: 'How long calls and messages in flight may take to finish when the router stops.',
    }),
    holdTimeMs: setting('ROUTER_HOLD_TIME_MS', milliseconds({ min: 1_000, max: 600_000 }), {
      default: 60_000,
      doc: 'Longest time that a queued message may hold its place in the queue. It stands still while the registry does not answer.',
    }),
    ackTimeoutMs: setting('ROUTER_ACK_TIMEOUT_MS', milliseconds({ min: 100, max: 60_000 }), {
      default: 10_000,
      doc: "How long a message that was written to its device waits for the device's answer.",
    }),
    inFlightMax: setting('ROUTER_IN_FLIGHT_MAX', wholeNumber({ min: 1, max: 100_000 }), {
      default: 4_096,
      doc: 'Queued messages in flight at once in each priority. Above it fetching pauses; nothing is dropped. While some edges answer, a quarter of it may be held for those that do not; what is above that is stored.',
    }),
    directInFlightMax: setting('ROUTER_DIRECT_IN_FLIGHT_MAX', wholeNumber({ min: 1, max: 100_000 }), {
      default: 4_096,
      doc: 'Direct messages in flight at once. Above it direct publishes are answered BACKLOG_FULL. While some edges answer, a quarter of it may wait for those that do not; what is above that is stored.',
    }),
    directAccountDevicesMax: setting('ROUTER_DIRECT_ACCOUNT_DEVICES_MAX', wholeNumber({ min: 1, max: 1_000 }), {
      default: 1_000,
      doc: 'Devices that an account may have for a direct message. Above it direct publishes are answered TOO_MANY_TARGETS; through the queue any number will do.',
    }),
    streamInFlightMax: setting('ROUTER_STREAM_IN_FLIGHT_MAX', wholeNumber({ min: 1, max: 100_000 }), {
      default: 1_024,
      doc: 'Items of one publish stream that are taken and not answered. Above it the stream is not read, which slows its publisher down.',
    }),
    flushesMax: setting('ROUTER_FLUSHES_MAX', wholeNumber({ min: 1, max: 100_000 }), {
      default: 1_024,
      doc: 'Inboxes sent to their devices at once. Above it edges are answered BACKLOG_FULL and try another router.',
    }),
    watchCountMax: setting('ROUTER_WATCH_COUNT_MAX', wholeNumber({ min: 0, max: 100_000 }), {
      default: 1_000,
      doc: 'Messages watched by publishers at once; each is a read at the registry about once a second. Above it watches are answered RATE_EXCEEDED.',
    }),
    deadLetterReplayRate: setting('ROUTER_DEAD_LETTER_REPLAY_RATE', wholeNumber({ min: 1, max: 1_000 }), {
      default: 50,
      doc: 'Dead letters that this router puts back into the queue in a second, when an operator replays them.',
    }),
    auditPath: setting('ROUTER_AUDIT_PATH', path(), {
      optional: true,
      doc: 'A file of this router alone, in which audit records wait while Kafka is away. Unset: recovery messages and what operators do are refused then.',
    }),
    auditJournalRecordsMax: setting('ROUTER_AUDIT_JOURNAL_RECORDS_MAX', wholeNumber({ min: 2, max: 10_000_000 }), {
      default: 100_000,
      doc: 'Records that may wait in that file; those of refused acts take half of it. Above it what must be recorded is not done, and answered AUDIT_UNAVAILABLE.',
    }),
    lookupDeadlineMs: setting('ROUTER_LOOKUP_DEADLINE_MS', milliseconds({ min: 50, max: 30_000 }), {
      default: 2_000,
      doc: 'Deadline of one call to the registry.',
    }),
    routeCacheEntryCountMax: setting('ROUTER_ROUTE_CACHE_ENTRY_COUNT_MAX', wholeNumber({ min: 0, max: 10_000_000 }), {
      default: 1_000_000,
      doc: 'Devices whose route is remembered.',
    }),
    routeCacheTtlMs: setting('ROUTER_ROUTE_CACHE_TTL_MS', milliseconds({ min: 0, max: 3_600_000 }), {
      default: 300_000,
      doc: 'Longest life of a remembered route; each gets between half of it and all of it.',
    }),
    ...queueSettings,
  },
  {
    check: (config) => [
      ...tlsProblems('ROUTER_', config),
      ...plainTextProblems(
        'ROUTER_',
        {
          protected: { ROUTER_LISTEN_ADDRESS: config.listenAddress, ROUTER_REGISTRY_ADDRESSES: config.registryAddresses },
          plain: { ROUTER_METRICS_ADDRESS: config.metricsAddress },
        },
        config,
      ),
      ...accessProblems(config),
      ...queueProblems(config),
    ],
  },
)

/** What the operator has set, checked whole. */
export type RouterConfig = ConfigOf<typeof routerConfig>

/** Reads the settings of a router. Throws ConfigError with every problem at once. */
export function readRouterConfig(env: Readonly<Record<string, string | undefined>>): RouterConfig {
  return readConfig(routerConfig, env)
}

function accessProblems({
  tlsCertFile,
  policyFile,
  jwtSecret,
}: Readonly<Record<'tlsCertFile' | 'policyFile' | 'jwtSecret', string | undefined>>): string[] {
  const problems: string[] = []
  if (tlsCertFile !== undefined && policyFile === undefined)
    problems.push('ROUTER_POLICY_FILE is missing; with TLS it says what each publisher and operator may do')
  if (jwtSecret !== undefined && Buffer.byteLength(jwtSecret) < tokenSecretBytesMin)
    problems.push(`ROUTER_JWT_SECRET must hold at least ${tokenSecretBytesMin} bytes`)
  if (jwtSecret !== undefined && tlsCertFile === undefined)
    problems.push('ROUTER_JWT_SECRET needs ROUTER_TLS_CERT_FILE; in plain text anybody could take the tokens')
  return problems
}
