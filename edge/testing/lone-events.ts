import { systemClock } from '../../service-kit/clock.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { type PortLimits, portLimits } from '../admission/port-limits.ts'
import { devIdentity } from '../auth/dev.ts'
import { readEdgeConfig } from '../config.ts'
import { type AdmittedDevice, type DeviceServerOptions, serveDevices } from '../device-server.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import type { ClientFrame } from '../frames.ts'

/** The device server alone: what it lets in and what it takes, without sessions. Refused devices are to come back after 1 s. */
export async function serveLone(more: Partial<DeviceServerOptions> = {}, limited: Partial<PortLimits> = {}) {
  const log = recordingLog()
  const metrics = createMetrics()
  const admitted: AdmittedDevice[] = []
  const taken: { deviceId: string; frame: ClientFrame }[] = []
  const limits = { ...portLimits(readEdgeConfig({})), connectionLimit: 10, listenerClosePercent: 100, ...limited }
  const server = await serveDevices({
    address: '127.0.0.1:0',
    allowedOrigins: ['https://good.example'],
    identity: devIdentity(),
    limits: () => limits,
    frameLimitBytes: 64 * 1024,
    gate: { sessionCount: () => 0, backlogged: () => false },
    admit: (device) => void admitted.push(device),
    awaits: () => false,
    takeAnswer: (deviceId, frame) => void taken.push({ deviceId, frame }),
    deviceFrames: () => ({ ratePerSecond: 200, burst: 1_000 }),
    showCredential: () => false,
    retryAfter: { next: () => 1 },
    clock: systemClock,
    random: seededRandom(1),
    log,
    metrics: createEdgeMetrics(metrics),
    ...more,
  })
  return {
    server,
    admitted,
    taken,
    log,
    metric: (name: string, labels?: Record<string, string>) => metricValue(metrics, name, labels),
    refusals: () => log.withPhrase('device refused').map(({ facts }) => [facts.reason, facts.answer]),
  }
}
