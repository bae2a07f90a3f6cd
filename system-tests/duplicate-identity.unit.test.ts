import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { readEdgeConfig, startEdge } from '../edge/index.ts'
import { readRegistryConfig, startRegistry } from '../registry/index.ts'
import { readRouterConfig, startRouter } from '../router/index.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'

/** A registry and a router on files, and so many edges, as in production but for store and queue. */
async function startPlane(edgeCount: number) {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-duplicate-'))
  const log = recordingLog()
  const closers = createClosers(log, systemClock)
  closers.add('folder', () => rmSync(folder, { recursive: true, force: true }))
  const kit = { clock: systemClock, random: systemRandom, log, closers }
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
  const edges = []
  for (let index = 0; index < edgeCount; index++) {
    const metrics = createMetrics()
    const config = readEdgeConfig({
      EDGE_NAME: `edge-${index}`,
      EDGE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_REGISTRY_ADDRESSES: registry.address,
      EDGE_ROUTER_ADDRESSES: router.address,
      EDGE_DRAIN_NOTICE_MS: '0',
      EDGE_DRAIN_MS: '0',
      EDGE_DRAIN_GRACE_MS: '0',
    })
    edges.push({ ...(await startEdge({ ...kit, config, metrics })), metrics })
  }
  return { edges, log, close: () => closers.close({ graceMs: 20_000 }) }
}

/** Connects as the device, and waits for `welcome`. */
async function connect(deviceAddress: string) {
  const headers = { authorization: 'Bearer dev:shared' }
  const webSocket = new WebSocket(`ws://${deviceAddress}/v1/connect`, ['push.v1.json'], { headers })
  const closed = new Promise<number>((resolve) => webSocket.on('close', (code) => resolve(code)))
  webSocket.on('error', () => {})
  await new Promise<void>((resolve) => webSocket.once('message', () => resolve()))
  return { webSocket, closed }
}

test('two devices under one id on ever other edges: the newest wins each time, from the sixth change on the replaced one is told 4006, it is reported, and nobody is locked out', async () => {
  const { edges, log, close } = await startPlane(3)
  try {
    const codes: number[] = []
    let holder = await connect(edges[0]?.deviceAddress ?? '')
    // No edge sees more than two changes in three; together they see all.
    for (let change = 1; change <= 8; change++) {
      const next = await connect(edges[change % edges.length]?.deviceAddress ?? '')
      codes.push(await holder.closed)
      holder = next
    }
    expect(codes).toEqual([4005, 4005, 4005, 4005, 4005, 4006, 4006, 4006])
    expect(holder.webSocket.readyState).toBe(WebSocket.OPEN)
    holder.webSocket.close()
    await holder.closed
    const reports = log.withPhrase('two devices seem to use one identity')
    expect(reports.map(({ level, facts }) => [level, facts.device_id, facts.takeovers])).toEqual([
      ['warn', 'shared', 6],
      ['warn', 'shared', 7],
      ['warn', 'shared', 8],
    ])
    const counted = await Promise.all(edges.map(({ metrics }) => metricValue(metrics, 'push_edge_duplicate_identities_total')))
    expect(counted.reduce<number>((sum, count) => sum + (count ?? 0), 0)).toBe(3)
  } finally {
    await close()
  }
}, 240_000)
