import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { connectDevice } from '../device-sdk/index.ts'
import { readEdgeConfig, startEdge } from '../edge/index.ts'
import { Priority } from '../gen/push/v1/message.ts'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { readRegistryConfig, startRegistry } from '../registry/index.ts'
import { readRouterConfig, startRouter } from '../router/index.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'

/** A plane on files whose edge gives a device one message a second, and four at once. */
async function startPlane() {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-rate-'))
  const closers = createClosers(silentLog, systemClock)
  closers.add('folder', () => rmSync(folder, { recursive: true, force: true }))
  const kit = { clock: systemClock, random: systemRandom, log: silentLog, closers }
  const registry = await startRegistry({
    ...kit,
    metrics: createMetrics(),
    config: readRegistryConfig({
      REGISTRY_LISTEN_ADDRESS: '127.0.0.1:0',
      REGISTRY_STORE: 'sqlite',
      REGISTRY_SQLITE_PATH: join(folder, 'registry.sqlite'),
    }),
  })
  const router = await startRouter({
    ...kit,
    metrics: createMetrics(),
    onFatal: (cause) => expect.unreachable(String(cause)),
    config: readRouterConfig({
      ROUTER_LISTEN_ADDRESS: '127.0.0.1:0',
      ROUTER_REGISTRY_ADDRESSES: registry.address,
      ROUTER_QUEUE_PATH: join(folder, 'queue.sqlite'),
    }),
  })
  const metrics = createMetrics()
  const edge = await startEdge({
    ...kit,
    metrics,
    config: readEdgeConfig({
      EDGE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_REGISTRY_ADDRESSES: registry.address,
      EDGE_ROUTER_ADDRESSES: router.address,
      EDGE_DELIVERY_RATE_PER_SECOND: '1',
      EDGE_DELIVERY_BURST: '4',
      EDGE_DRAIN_NOTICE_MS: '0',
      EDGE_DRAIN_MS: '0',
      EDGE_DRAIN_GRACE_MS: '0',
    }),
  })
  return { edge, router, metrics, closers }
}

test('a burst beyond the rate waits in the inbox and comes whole, each message once, as the rate allows', async () => {
  const { edge, router, metrics, closers } = await startPlane()
  try {
    const handled: string[] = []
    const device = connectDevice({
      url: `ws://${edge.deviceAddress}/v1/connect`,
      token: 'dev:tv-1',
      onMessage: ({ name }) => void handled.push(name ?? ''),
    })
    closers.add('device', () => device.close({ graceMs: 0 }))
    await expect.poll(() => device.state, { timeout: 30_000 }).toBe('open')
    const connection = connectGrpc({ addresses: router.address, log: silentLog, clock: systemClock })
    closers.add('connection', () => connection.close())
    const service = connection.client(PublishServiceDefinition)
    const publish = (name: string, priority: Priority) =>
      service.publish(
        { message: { target: { $case: 'deviceId', value: 'tv-1' }, name, payload: Buffer.from('{}'), priority } },
        { deadlineMs: 30_000 },
      )
    const bulk: string[] = []
    // Four times the rate, until the edge has had enough.
    const enough = async () => {
      const limited = await metricValue(metrics, 'push_edge_outcomes_total', { kind: 'rate_limited' })
      if (limited !== undefined && limited > 0) return true
      const names = Array.from({ length: 8 }, (_, index) => `bulk-${bulk.length + index}`)
      bulk.push(...names)
      await Promise.all(names.map((name) => publish(name, Priority.NORMAL)))
      return false
    }
    await expect.poll(enough, { timeout: 60_000, interval: 2_000 }).toBe(true)
    await publish('urgent', Priority.HIGH)
    await expect.poll(() => handled.length, { timeout: 60_000 }).toBe(bulk.length + 1)
    expect(new Set(handled)).toEqual(new Set([...bulk, 'urgent']))
    expect(await metricValue(metrics, 'push_edge_belt_flush_found_total')).toBe(0)
  } finally {
    await closers.close({ graceMs: 30_000 })
  }
}, 180_000)
