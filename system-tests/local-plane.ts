import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type RunningEdge, readEdgeConfig, startEdge } from '../edge/index.ts'
import { readRegistryConfig, startRegistry } from '../registry/index.ts'
import { readRouterConfig, startRouter } from '../router/index.ts'
import { systemClock } from '../service-kit/clock.ts'
import { type Closers, createClosers } from '../service-kit/closers.ts'
import { type Log, silentLog } from '../service-kit/log.ts'
import { createMetrics, type Metrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'

/** A registry, a router and edges in this process, on files: as in production but for store and queue. */
export interface LocalPlane {
  readonly routerAddress: string
  readonly edges: readonly (RunningEdge & { readonly metrics: Metrics })[]
  /** Closes all of it; a test adds what it opens itself. */
  readonly closers: Closers
}

/** Edges are named `edge-0`, `edge-1`, … and keep nobody when they stop. `edgeEnv`: their settings beside those that every plane needs. */
export async function startLocalPlane({
  edgeCount = 1,
  edgeEnv = {},
  log = silentLog,
}: {
  readonly edgeCount?: number
  readonly edgeEnv?: Readonly<Record<string, string>>
  readonly log?: Log
}): Promise<LocalPlane> {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-local-'))
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
      ...edgeEnv,
    })
    edges.push({ ...(await startEdge({ ...kit, config, metrics })), metrics })
  }
  return { routerAddress: router.address, edges, closers }
}
