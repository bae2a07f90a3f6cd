import { expect, test } from 'vitest'
import { PortTakenError } from './listen-address.ts'
import { createMetrics } from './metrics.ts'
import { serveMetrics } from './metrics-server.ts'
import { metricValue } from './testing/metric-value.ts'

test('asking for a name again gives the same metric', async () => {
  const metrics = createMetrics()
  metrics.counter('push_x_total', 'x', ['reason']).inc({ reason: 'FULL' })
  metrics.counter('push_x_total', 'x', ['reason']).inc({ reason: 'FULL' }, 2)
  expect(await metricValue(metrics, 'push_x_total', { reason: 'FULL' })).toBe(3)
  expect(await metricValue(metrics, 'push_x_total', { reason: 'OTHER' })).toBeUndefined()
})

test('asking for a name as another kind or with other labels is a defect', () => {
  const metrics = createMetrics()
  metrics.counter('push_x_total', 'x', ['reason'])
  expect(() => metrics.gauge('push_x_total', 'x', ['reason'])).toThrow('push_x_total is a counter')
  expect(() => metrics.counter('push_x_total', 'x', ['method'])).toThrow('labels [reason]')
})

test('gauges and histograms are read the same way', async () => {
  const metrics = createMetrics()
  metrics.gauge('push_open', 'open').set(4)
  metrics.histogram('push_wait_seconds', 'wait', [0.1, 1]).observe(0.5)
  expect(await metricValue(metrics, 'push_open')).toBe(4)
  expect(await metricValue(metrics, 'push_wait_seconds_count')).toBe(1)
  expect(await metricValue(metrics, 'push_wait_seconds_bucket', { le: '0.1' })).toBe(0)
})

test('metrics are scraped over HTTP; other paths and methods are refused; a taken port is named', async () => {
  const metrics = createMetrics()
  metrics.counter('push_x_total', 'how many').inc()
  const server = await serveMetrics(metrics, '127.0.0.1:0')
  try {
    const scraped = await fetch(`http://${server.address}/metrics`)
    expect(scraped.headers.get('content-type')).toContain('version=0.0.4')
    expect(await scraped.text()).toContain('push_x_total 1')
    expect((await fetch(`http://${server.address}/secrets`)).status).toBe(404)
    expect((await fetch(`http://${server.address}/metrics`, { method: 'POST' })).status).toBe(405)
    await expect(serveMetrics(metrics, server.address)).rejects.toThrow(PortTakenError)
  } finally {
    await server.close()
  }
})
