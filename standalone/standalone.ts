import { readEdgeConfig, startEdge } from '../edge/index.ts'
import { readRegistryConfig, startRegistry } from '../registry/index.ts'
import { readRouterConfig, startRouter } from '../router/index.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Closers } from '../service-kit/closers.ts'
import { PortTakenError } from '../service-kit/listen-address.ts'
import type { Log } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import type { Random } from '../service-kit/random.ts'
import { StartError } from '../service-kit/start-error.ts'
import type { StandaloneConfig } from './config.ts'
import { takeDataFolder } from './data-folder.ts'
import { startDemoDevice } from './demo-device.ts'
import type { WelcomeFacts } from './welcome.ts'

/** What a plane in one process is started with. */
export interface StandaloneOptions {
  readonly config: StandaloneConfig
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  /** Everything opened is added here. */
  readonly closers: Closers
  /** Where the demo device says what it receives. */
  readonly print: (line: string) => void
  /** The queue cannot go on: the process must end. */
  readonly onFatal: (cause: unknown) => void
}

/** How long the first device may take to connect, in ms. */
const connectTimeoutMs = 20_000

/** The device that is connected from the start. */
export const demoDeviceId = 'demo'

/**
 * Starts registry, router and edge in this process, on files in the data folder, and connects a demo device. The same code as in production, and
 * the parts talk over the same contracts; only store and queue are the embedded ones. Throws StartError when a port or the folder is taken.
 */
export async function startStandalone(options: StandaloneOptions): Promise<WelcomeFacts> {
  const { config, closers, clock, random, log, print, onFatal } = options
  const folder = takeDataFolder(config.dataFolder)
  closers.add('data folder', () => folder.release())
  // Each part has metrics of its own, as each has a process of its own in production.
  const part = (name: string) => ({ clock, random, closers, log: log.child({ part: name }), metrics: createMetrics() })

  const registry = await orName('STANDALONE_REGISTRY_ADDRESS', () =>
    startRegistry({
      ...part('registry'),
      config: readRegistryConfig({
        REGISTRY_LISTEN_ADDRESS: config.registryAddress,
        REGISTRY_STORE: 'sqlite',
        REGISTRY_SQLITE_PATH: folder.file('registry.sqlite'),
      }),
    }),
  )
  const router = await orName('STANDALONE_ROUTER_ADDRESS', () =>
    startRouter({
      ...part('router'),
      onFatal,
      config: readRouterConfig({
        ROUTER_LISTEN_ADDRESS: config.routerAddress,
        ROUTER_REGISTRY_ADDRESSES: registry.address,
        ROUTER_QUEUE_PATH: folder.file('queue.sqlite'),
        ROUTER_REFLECTION: 'true',
      }),
    }),
  )
  const edge = await orName('STANDALONE_EDGE_ADDRESS or STANDALONE_DEVICE_ADDRESS', () =>
    startEdge({
      ...part('edge'),
      config: readEdgeConfig({
        EDGE_NAME: 'standalone',
        EDGE_LISTEN_ADDRESS: config.edgeAddress,
        EDGE_DEVICE_LISTEN_ADDRESS: config.deviceAddress,
        EDGE_REGISTRY_ADDRESSES: registry.address,
        EDGE_ROUTER_ADDRESSES: router.address,
        EDGE_AUTH: 'dev',
        // Ctrl-C should not take longer than a person waits, and devices have no other edge to go to.
        EDGE_DRAIN_NOTICE_MS: '0',
        EDGE_DRAIN_MS: '500',
        EDGE_DRAIN_GRACE_MS: '500',
      }),
    }),
  )
  const demo = startDemoDevice(`ws://${edge.deviceAddress}/v1/connect`, demoDeviceId, print)
  closers.add('demo device', () => demo.close())
  await inTime(demo.connected, clock, folder.path)
  return {
    routerAddress: router.address,
    registryAddress: registry.address,
    edgeAddress: edge.address,
    deviceAddress: edge.deviceAddress,
    dataPath: folder.path,
  }
}

/** A taken port is told with the setting that moves it. */
async function orName<T>(setting: string, start: () => Promise<T>): Promise<T> {
  try {
    return await start()
  } catch (error) {
    if (error instanceof PortTakenError)
      throw new StartError(`${error.address} is taken by another process; stop that one, or set ${setting}`, { cause: error })
    throw error
  }
}

/** The demo device connects within moments, unless the plane does not work: then the data is the likely cause. */
async function inTime(connected: Promise<void>, clock: Clock, dataPath: string): Promise<void> {
  const come = new AbortController()
  const tooLate = clock.sleep(connectTimeoutMs, come.signal).then(
    () => {
      throw new StartError(
        `no device can connect; the log above says why. If the data in ${dataPath} is damaged, delete that folder to begin anew`,
      )
    },
    () => undefined,
  )
  try {
    await Promise.race([connected, tooLate])
  } finally {
    come.abort()
  }
}
