import { type AddressSet, parseAddressSet } from '../service-kit/address-set.ts'
import {
  address,
  addressList,
  addressSet,
  bytes,
  type ConfigOf,
  defineConfig,
  flag,
  milliseconds,
  oneOf,
  readConfig,
  setting,
  text,
  wholeNumber,
} from '../service-kit/config.ts'
import { parseHostPort } from '../service-kit/listen-address.ts'
import { logLevels } from '../service-kit/log.ts'
import { settingsFileSetting } from '../service-kit/settings-file.ts'
import { plainTextProblems, tlsProblems, tlsSettings } from '../service-kit/tls-settings.ts'
import { identityProblems, identitySettings } from './auth/identity-settings.ts'

const hour = 3_600_000
const loopbackAddresses = knownSet('127.0.0.0/8,::1')
const noAddresses = knownSet('none')

/** What the operator may set. */
export const edgeConfig = defineConfig(
  'edge',
  {
    name: setting('EDGE_NAME', text({ pattern: { matches: /^[a-z0-9-]{1,54}$/, expected: '1 to 54 characters of [a-z0-9-]' } }), {
      default: 'edge',
      doc: 'Name of this edge for people. Each start adds a random suffix.',
    }),
    zone: setting('EDGE_ZONE', text({ maxLength: 63 }), {
      optional: true,
      doc: 'Zone that the edge runs in, for operators to see.',
    }),
    listenAddress: setting('EDGE_LISTEN_ADDRESS', address(), {
      default: '127.0.0.1:7402',
      doc: 'Where routers reach the edge. Port 0 lets the system choose.',
    }),
    advertiseAddress: setting('EDGE_ADVERTISE_ADDRESS', address(), {
      optional: true,
      doc: 'Where routers are told to reach the edge; the bound address when unset.',
    }),
    deviceListenAddress: setting('EDGE_DEVICE_LISTEN_ADDRESS', address(), {
      default: '127.0.0.1:7480',
      doc: 'Where devices connect. Port 0 lets the system choose.',
    }),
    metricsAddress: setting('EDGE_METRICS_ADDRESS', address(), {
      optional: true,
      doc: 'Where metrics can be scraped; no port when unset.',
    }),
    registryAddresses: setting('EDGE_REGISTRY_ADDRESSES', addressList(), {
      default: '127.0.0.1:7401',
      doc: 'The registries.',
    }),
    routerAddresses: setting('EDGE_ROUTER_ADDRESSES', addressList(), {
      default: '127.0.0.1:7400',
      doc: 'The routers; any of them takes reports.',
    }),
    settingsFile: settingsFileSetting('EDGE_'),
    logLevel: setting('EDGE_LOG_LEVEL', oneOf(logLevels), { default: 'info', doc: 'How much is logged.' }),
    insecure: setting('EDGE_INSECURE', flag(), {
      default: false,
      doc: 'Allows plain text beyond this machine: for devices and metrics, and without TLS for other services, listening and dialling.',
    }),
    ...tlsSettings('EDGE_'),
    ...identitySettings,
    allowedOrigins: setting('EDGE_ALLOWED_ORIGINS', text({ maxLength: 4_096 }), {
      optional: true,
      doc: 'Comma list of origins whose pages may connect, each exactly as browsers send it. Unset: no page may.',
    }),
    connectionLimit: setting('EDGE_CONNECTION_LIMIT', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 18_000,
      reloadable: true,
      doc: 'Most devices at once; more get 503 with Retry-After.',
    }),
    listenerClosePercent: setting('EDGE_LISTENER_CLOSE_PERCENT', wholeNumber({ min: 50, max: 100 }), {
      default: 95,
      reloadable: true,
      doc: 'At this share of EDGE_CONNECTION_LIMIT the device port is closed until 5 % have become free, so that a balancer goes elsewhere; health checks there fail as well. 100: it stays open, and answers 503.',
    }),
    addressConnectionLimit: setting('EDGE_ADDRESS_CONNECTION_LIMIT', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 5_000,
      reloadable: true,
      doc: 'Most connections of one address (for IPv6: of one /64 network). Many devices may share one.',
    }),
    addressConnectsPerSecond: setting('EDGE_ADDRESS_CONNECTS_PER_SECOND', wholeNumber({ min: 1, max: 100_000 }), {
      default: 50,
      reloadable: true,
      doc: 'Connections a second that one address may open, on average.',
    }),
    addressConnectBurst: setting('EDGE_ADDRESS_CONNECT_BURST', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 1_000,
      reloadable: true,
      doc: 'Connections that one address may open at once after a pause.',
    }),
    addressFailuresPerSecond: setting('EDGE_ADDRESS_FAILURES_PER_SECOND', wholeNumber({ min: 1, max: 100_000 }), {
      default: 5,
      reloadable: true,
      doc: 'Connections a second of one address that may end without having been authenticated, on average; above it all of its connections are refused.',
    }),
    addressFailureBurst: setting('EDGE_ADDRESS_FAILURE_BURST', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 100,
      reloadable: true,
      doc: 'Such connections at once after a pause.',
    }),
    connectsPerSecond: setting('EDGE_CONNECTS_PER_SECOND', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 1_000,
      reloadable: true,
      doc: 'Connections a second of all addresses together, on average.',
    }),
    connectBurst: setting('EDGE_CONNECT_BURST', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 4_000,
      reloadable: true,
      doc: 'Connections of all addresses together at once after a pause.',
    }),
    addressesMax: setting('EDGE_ADDRESSES_MAX', wholeNumber({ min: 100, max: 10_000_000 }), {
      default: 50_000,
      reloadable: true,
      doc: 'Most addresses without a connection that are remembered, at about 300 bytes each; the ones not seen for longest go.',
    }),
    unlimitedAddresses: setting('EDGE_UNLIMITED_ADDRESSES', addressSet(), {
      default: loopbackAddresses,
      reloadable: true,
      doc: 'Addresses that are not counted one by one: a balancer in front that hides those of the devices.',
    }),
    proxyAddresses: setting('EDGE_PROXY_ADDRESSES', addressSet(), {
      default: noAddresses,
      reloadable: true,
      doc: 'Addresses of proxies. Each connection from there must begin with a PROXY header, version 1 or 2, that names the device; from elsewhere none may.',
    }),
    handshakeTimeoutMs: setting('EDGE_HANDSHAKE_TIMEOUT_MS', milliseconds({ min: 100, max: 60_000 }), {
      default: 10_000,
      reloadable: true,
      doc: 'How long a client has from its connection to the end of its request or its upgrade, however slowly it sends.',
    }),
    handshakesMax: setting('EDGE_HANDSHAKES_MAX', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 4_096,
      reloadable: true,
      doc: 'Most connections at once whose request or upgrade is not finished; for each one more the one that has been so for longest is refused.',
    }),
    refusedSocketsMax: setting('EDGE_REFUSED_SOCKETS_MAX', wholeNumber({ min: 0, max: 100_000 }), {
      default: 256,
      reloadable: true,
      doc: 'Most connections over a limit that may still say what they want, and most browsers that are upgraded only to be told why they are refused; more get plain HTTP.',
    }),
    registerTimeoutMs: setting('EDGE_REGISTER_TIMEOUT_MS', milliseconds({ min: 500, max: 60_000 }), {
      default: 5_000,
      doc: 'How long a connection may wait for its row in the registry, repeats included; then it is closed with 1013.',
    }),
    registerRatePerSecond: setting('EDGE_REGISTER_RATE_PER_SECOND', wholeNumber({ min: 1, max: 100_000 }), {
      default: 500,
      reloadable: true,
      doc: 'Registrations a second that the edge counts on. Times the timeout it bounds how many may wait.',
    }),
    deviceFramesPerSecond: setting('EDGE_DEVICE_FRAMES_PER_SECOND', wholeNumber({ min: 1, max: 100_000 }), {
      default: 200,
      reloadable: true,
      doc: 'Frames a second that one device may send, pings and pongs among them; each started 4 KiB and each 10 ids of an ack count as one, first answers to what the edge has sent as none. Above it the device is closed with 4502.',
    }),
    deviceFrameBurst: setting('EDGE_DEVICE_FRAME_BURST', wholeNumber({ min: 32, max: 1_000_000 }), {
      default: 1_000,
      reloadable: true,
      doc: 'Such frames at once after a pause.',
    }),
    takeoversMax: setting('EDGE_TAKEOVERS_MAX', wholeNumber({ min: 1, max: 100 }), {
      default: 5,
      reloadable: true,
      doc: 'So often within 10 min a session of a device may take the place of one younger than 10 min. From then on the replaced one is closed with 4006 and reported: two devices use one identity.',
    }),
    pingIntervalMs: setting('EDGE_PING_INTERVAL_MS', milliseconds({ min: 1_000, max: 10 * 60_000 }), {
      default: 60_000,
      doc: 'How often each device is pinged.',
    }),
    pongTimeoutMs: setting('EDGE_PONG_TIMEOUT_MS', milliseconds({ min: 1_000, max: 60_000 }), {
      default: 10_000,
      doc: 'Longest wait for a sign of life after a ping; then the session is closed with 4002.',
    }),
    lifetimeMs: setting('EDGE_LIFETIME_MS', milliseconds({ min: 1_000, max: 24 * hour }), {
      default: hour / 2,
      doc: 'Longest lifetime of a session; then the device is asked to open another.',
    }),
    lifetimeJitterMs: setting('EDGE_LIFETIME_JITTER_MS', milliseconds({ min: 0, max: 24 * hour }), {
      default: hour / 4,
      doc: 'How much shorter lifetimes may be, at random. A half of the lifetime keeps reconnects from coming together.',
    }),
    slotMaxMs: setting('EDGE_SLOT_MAX_MS', milliseconds({ min: 0, max: hour }), {
      default: 30_000,
      doc: 'Within this lies the moment at which a device with its lifetime over is asked to leave.',
    }),
    slotGraceMs: setting('EDGE_SLOT_GRACE_MS', milliseconds({ min: 0, max: hour }), {
      default: 30_000,
      doc: 'How long after its slot a device may still stay; then it is closed with 4000.',
    }),
    drainNoticeMs: setting('EDGE_DRAIN_NOTICE_MS', milliseconds({ min: 0, max: hour }), {
      default: 5_000,
      doc: 'How long a draining edge, though not ready, goes on as before, until the balancer has noticed; then it takes no new devices.',
    }),
    drainMs: setting('EDGE_DRAIN_MS', milliseconds({ min: 0, max: hour }), {
      default: 10_000,
      doc: 'Over this the devices are spread that leave in a drain, unless an operator gives it another pace.',
    }),
    drainGraceMs: setting('EDGE_DRAIN_GRACE_MS', milliseconds({ min: 0, max: hour }), {
      default: 5_000,
      doc: 'How long after its slot a device may still stay in a drain, then closed with 4001; and how long calls may then take to end.',
    }),
    stuckMs: setting('EDGE_STUCK_MS', milliseconds({ min: 1_000, max: hour }), {
      default: 60_000,
      doc: 'So long without reading or answering, with messages waiting, and a device is closed with 4003.',
    }),
    outboxBytes: setting('EDGE_OUTBOX_BYTES', bytes({ min: 200_000, max: 64 * 1024 * 1024 }), {
      default: 512 * 1024,
      doc: 'Most bytes that wait for one device; above it messages are answered SLOW_CONSUMER.',
    }),
    outboxCount: setting('EDGE_OUTBOX_COUNT', wholeNumber({ min: 4, max: 100_000 }), {
      default: 256,
      doc: 'Most messages that wait for one device.',
    }),
    outboxAgeMs: setting('EDGE_OUTBOX_AGE_MS', milliseconds({ min: 1_000, max: hour }), {
      default: 20_000,
      doc: 'How long a message may wait for its device to read or to answer earlier ones; then it is given back as SLOW_CONSUMER.',
    }),
    deliveryRatePerSecond: setting('EDGE_DELIVERY_RATE_PER_SECOND', wholeNumber({ min: 0, max: 1_000_000 }), {
      default: 100,
      doc: 'Messages a second to one device, HIGH and recovery counted but not limited; above it RATE_LIMITED: they wait in the inbox. 0: any number.',
    }),
    deliveryBurst: setting('EDGE_DELIVERY_BURST', wholeNumber({ min: 1, max: 1_000_000 }), {
      default: 500,
      doc: 'Messages that a device may get at once after a pause.',
    }),
    outboxTotalBytes: setting('EDGE_OUTBOX_TOTAL_BYTES', bytes({ min: 1_000_000, max: 64 * 1024 ** 3 }), {
      default: 256 * 1024 * 1024,
      doc: 'Most bytes that wait for all devices together.',
    }),
    flushesAtOnce: setting('EDGE_FLUSHES_AT_ONCE', wholeNumber({ min: 1, max: 100_000 }), {
      default: 256,
      doc: 'Most inboxes that are flushed at once; more devices wait for their turn.',
    }),
    lateAnswersBytes: setting('EDGE_LATE_ANSWERS_BYTES', bytes({ min: 1_000_000, max: 64 * 1024 ** 3 }), {
      default: 64 * 1024 * 1024,
      doc: 'Most bytes of answers that wait to be reported to a router because no stream waits for them; above it the oldest are lost.',
    }),
    leaseTtlMs: setting('EDGE_LEASE_TTL_MS', milliseconds({ min: 2_000, max: 300_000 }), {
      default: 30_000,
      doc: 'How long the lease of this edge lasts; it is renewed three times meanwhile. As REGISTRY_EDGE_LEASE_PERIOD_MS.',
    }),
    recheckRatePerSecond: setting('EDGE_RECHECK_RATE_PER_SECOND', wholeNumber({ min: 1, max: 100_000 }), {
      default: 1_000,
      doc: 'Devices a second that are looked up after the lease of this edge had lapsed.',
    }),
    messageFrameLimitBytes: setting('EDGE_MESSAGE_FRAME_LIMIT_BYTES', bytes({ min: 1_024, max: 150_000 }), {
      default: 128 * 1024,
      doc: 'Largest frame to a device; a message that needs a larger one is TOO_LARGE.',
    }),
  },
  {
    check: (config) => [
      ...tlsProblems('EDGE_', config),
      ...plainTextProblems(
        'EDGE_',
        {
          protected: {
            EDGE_LISTEN_ADDRESS: config.listenAddress,
            EDGE_REGISTRY_ADDRESSES: config.registryAddresses,
            EDGE_ROUTER_ADDRESSES: config.routerAddresses,
          },
          plain: {
            EDGE_METRICS_ADDRESS: config.metricsAddress,
            ...(config.deviceTlsCertFile === undefined && { EDGE_DEVICE_LISTEN_ADDRESS: config.deviceListenAddress }),
          },
        },
        config,
      ),
      ...unreachable(config.listenAddress, config.advertiseAddress),
      ...identityProblems(config),
      ...(config.lifetimeJitterMs > config.lifetimeMs
        ? [`EDGE_LIFETIME_JITTER_MS is ${config.lifetimeJitterMs}, longer than EDGE_LIFETIME_MS with ${config.lifetimeMs}`]
        : []),
    ],
  },
)

export type EdgeConfig = ConfigOf<typeof edgeConfig>

/** Reads and checks the environment. Throws ConfigError with every problem. */
export function readEdgeConfig(env: Readonly<Record<string, string | undefined>>): EdgeConfig {
  return readConfig(edgeConfig, env)
}

function knownSet(text: string): AddressSet {
  const set = parseAddressSet(text)
  if (set === undefined) throw new TypeError(`"${text}" is no set of addresses`)
  return set
}

/** The origins that may connect. */
export function originsOf(config: EdgeConfig): string[] {
  return (config.allowedOrigins ?? '')
    .split(',')
    .map((origin) => origin.trim())
    .filter((origin) => origin !== '')
}

/** Routers on other machines cannot dial "every address of this one". */
function unreachable(listenAddress: string, advertiseAddress: string | undefined): string[] {
  if (advertiseAddress !== undefined) {
    return advertiseAddress.endsWith(':0')
      ? [`EDGE_ADVERTISE_ADDRESS is "${advertiseAddress}"; expected the port that routers dial`]
      : []
  }
  const host = parseHostPort(listenAddress)?.host
  if (host !== '0.0.0.0' && host !== '::') return []
  return [
    `EDGE_LISTEN_ADDRESS is "${listenAddress}", which nobody can dial; set EDGE_ADVERTISE_ADDRESS to what routers shall dial`,
  ]
}
