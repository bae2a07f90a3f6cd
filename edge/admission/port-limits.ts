import type { AddressSet } from '../../service-kit/address-set.ts'
import type { TokenRate } from '../../service-kit/token-bucket.ts'
import type { EdgeConfig } from '../config.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { AddressTableLimits } from './address-table.ts'

/** What bounds the device port. All of it may change while the edge runs; so it is asked for where it is used. */
export interface PortLimits extends AddressTableLimits {
  /** Most sessions and handshakes together. */
  readonly connectionLimit: number
  /** At this share of the connection limit the port is closed, and opened again below it; 100 for never. */
  readonly listenerClosePercent: number
  readonly addressConnectionLimit: number
  readonly addressConnects: TokenRate
  readonly addressFailures: TokenRate
  /** Connections of all addresses together. */
  readonly connects: TokenRate
  /** Not counted by address. */
  readonly unlimitedAddresses: AddressSet
  /** Speak the PROXY protocol, and nothing else. */
  readonly proxyAddresses: AddressSet
  /** From the connection to the end of its request, or of its upgrade. */
  readonly handshakeTimeoutMs: number
  /** Most connections that have not shown yet what they are; above it the one that has been so for longest goes. */
  readonly handshakesMax: number
  /** Most refused connections that are heard at once, and most that are upgraded only to be told why. */
  readonly refusedSocketsMax: number
}

/** The limits that a config says. */
export function portLimits(config: EdgeConfig): PortLimits {
  const { connectionLimit, listenerClosePercent, addressConnectionLimit, addressesMax } = config
  const { unlimitedAddresses, proxyAddresses, handshakeTimeoutMs, handshakesMax, refusedSocketsMax } = config
  return {
    connectionLimit,
    listenerClosePercent,
    addressConnectionLimit,
    addressConnects: { ratePerSecond: config.addressConnectsPerSecond, burst: config.addressConnectBurst },
    addressFailures: { ratePerSecond: config.addressFailuresPerSecond, burst: config.addressFailureBurst },
    connects: { ratePerSecond: config.connectsPerSecond, burst: config.connectBurst },
    addressesMax,
    unlimitedAddresses,
    proxyAddresses,
    handshakeTimeoutMs,
    handshakesMax,
    refusedSocketsMax,
  }
}

/** Shows each limit as it is now, by the name of its setting. */
export function showLimits(config: EdgeConfig, metrics: Pick<EdgeMetrics, 'limits'>): void {
  const shown = {
    connection_limit: config.connectionLimit,
    listener_close_percent: config.listenerClosePercent,
    address_connection_limit: config.addressConnectionLimit,
    address_connects_per_second: config.addressConnectsPerSecond,
    address_connect_burst: config.addressConnectBurst,
    address_failures_per_second: config.addressFailuresPerSecond,
    address_failure_burst: config.addressFailureBurst,
    connects_per_second: config.connectsPerSecond,
    connect_burst: config.connectBurst,
    addresses_max: config.addressesMax,
    handshake_timeout_ms: config.handshakeTimeoutMs,
    handshakes_max: config.handshakesMax,
    refused_sockets_max: config.refusedSocketsMax,
    device_frames_per_second: config.deviceFramesPerSecond,
    device_frame_burst: config.deviceFrameBurst,
    takeovers_max: config.takeoversMax,
    register_rate_per_second: config.registerRatePerSecond,
  }
  for (const [limit, value] of Object.entries(shown)) metrics.limits.set({ limit }, value)
}
