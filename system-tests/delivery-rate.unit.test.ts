import { expect, test } from 'vitest'
import { connectDevice } from '../device-sdk/index.ts'
import { Priority } from '../gen/push/v1/message.ts'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { startLocalPlane } from './local-plane.ts'

test('a burst beyond the rate waits in the inbox and comes whole, each message once, as the rate allows', async () => {
  // One message a second, and four at once.
  const edgeEnv = { EDGE_DELIVERY_RATE_PER_SECOND: '1', EDGE_DELIVERY_BURST: '4' }
  const { edges, routerAddress, closers } = await startLocalPlane({ edgeEnv })
  try {
    const [edge] = edges
    if (edge === undefined) throw new Error('no edge')
    const { metrics } = edge
    const handled: string[] = []
    const device = connectDevice({
      url: `ws://${edge.deviceAddress}/v1/connect`,
      token: 'dev:tv-1',
      onMessage: ({ name }) => void handled.push(name ?? ''),
    })
    closers.add('device', () => device.close({ graceMs: 0 }))
    await expect.poll(() => device.state, { timeout: 30_000 }).toBe('open')
    const connection = connectGrpc({ addresses: routerAddress, log: silentLog, clock: systemClock })
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
