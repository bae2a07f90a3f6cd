import { expect } from 'vitest'
import { parseAddressSet } from '../../service-kit/address-set.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { type PortLimits, portLimits } from '../admission/port-limits.ts'
import { devIdentity } from '../auth/dev.ts'
import { readEdgeConfig } from '../config.ts'
import { type DeviceServerOptions, serveDevices } from '../device-server.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { createRetryAfter } from '../retry-after.ts'
import { rawClient } from './raw-client.ts'

/** What an operator would type. */
export function addresses(text: string) {
  const set = parseAddressSet(text)
  if (set === undefined) throw new TypeError(`"${text}" is no set of addresses`)
  return set
}

/** The device port alone, refusing whom a test wants refused, on a clock that stands still. Loopback addresses are limited as all others. */
export async function serveAlone(more: Partial<DeviceServerOptions> = {}, limited: Partial<PortLimits> = {}) {
  const log = recordingLog()
  const clock = new SteeredClock()
  const metrics = createMetrics()
  let limits: PortLimits = { ...portLimits(readEdgeConfig({})), unlimitedAddresses: addresses('none'), ...limited }
  const random = seededRandom(1)
  const server = await serveDevices({
    address: '127.0.0.1:0',
    allowedOrigins: [],
    identity: devIdentity(),
    limits: () => limits,
    frameLimitBytes: 1_000,
    gate: { sessionCount: () => 0, backlogged: () => false },
    admit: () => expect.unreachable(),
    awaits: () => false,
    takeAnswer: () => expect.unreachable(),
    deviceFrames: () => expect.unreachable(),
    showCredential: () => expect.unreachable(),
    retryAfter: createRetryAfter({ clock, random, ratePerSecond: 1 }),
    clock,
    random,
    log,
    metrics: createEdgeMetrics(metrics),
    ...more,
  })
  const client = rawClient(server.address)
  return {
    server,
    client,
    clock,
    log,
    connect: () => rawClient(server.address),
    metric: (name: string, labels?: Record<string, string>) => metricValue(metrics, name, labels),
    refusals: () => log.withPhrase('device refused').map(({ facts }) => [facts.reason, facts.answer]),
    setLimits(changed: Partial<PortLimits>) {
      limits = { ...limits, ...changed }
      server.limitsChanged()
    },
    async close() {
      client.end()
      await server.close()
      expect(clock.pendingTimers, 'timers left over').toBe(0)
    },
  }
}
