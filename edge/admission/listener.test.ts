import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { readEdgeConfig } from '../config.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { rawClient } from '../testing/raw-client.ts'
import { openListener } from './listener.ts'
import { portLimits } from './port-limits.ts'

test('connections that the system cannot hand over end nothing: they are counted, and logged once a second', async () => {
  const clock = new SteeredClock()
  const log = recordingLog()
  const metrics = createMetrics()
  const server = createServer((socket) => void socket.end('here'))
  const limits = portLimits(readEdgeConfig({}))
  const listener = await openListener(server, '127.0.0.1:0', {
    limits: () => limits,
    connectionCount: () => 0,
    clock,
    log,
    metrics: createEdgeMetrics(metrics),
  })
  const shortOfDescriptors = Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' })
  for (let index = 0; index < 3; index++) server.emit('error', shortOfDescriptors)
  await clock.advance(1_000)
  server.emit('error', shortOfDescriptors)
  expect(await metricValue(metrics, 'push_edge_accept_errors_total')).toBe(4)
  expect(log.withPhrase('a connection could not be accepted')).toHaveLength(2)
  const client = rawClient(listener.address)
  await client.closed
  expect(client.received().toString()).toBe('here')
  listener.stop()
  await new Promise((resolve) => server.close(resolve))
})
