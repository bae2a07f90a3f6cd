import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { ServiceProcess } from '../plane/service-process.ts'
import { freePorts } from '../servers/ports.ts'

/** One registry, one router and one edge, each in a process of its own, on the embedded store and queue. */
export interface SmallPlane {
  readonly registry: ServiceProcess
  readonly router: ServiceProcess
  readonly edge: ServiceProcess
  /** `host:port` of the gRPC port of each. */
  readonly addresses: { readonly registry: string; readonly router: string; readonly edge: string }
  close(): Promise<void>
}

const entryOf = (path: string) => fileURLToPath(new URL(path, import.meta.url))

/** `edgeEnv`: settings of the edge beside those that every plane needs. */
export async function startSmallPlane(edgeEnv: Readonly<Record<string, string>> = {}): Promise<SmallPlane> {
  const folder = await mkdtemp(join(tmpdir(), 'pushplane-conformance-'))
  const [registryPort, routerPort, edgePort, devicePort] = await freePorts(4)
  const at = (port: number | undefined) => `127.0.0.1:${port}`
  const addresses = { registry: at(registryPort), router: at(routerPort), edge: at(edgePort) }
  const registry = new ServiceProcess({
    name: 'registry',
    entry: entryOf('../../registry/main.ts'),
    readyPhrase: 'registry ready',
    folder,
    env: {
      REGISTRY_LISTEN_ADDRESS: addresses.registry,
      REGISTRY_STORE: 'sqlite',
      REGISTRY_SQLITE_PATH: join(folder, 'registry.db'),
      REGISTRY_REFLECTION: 'true',
    },
  })
  const router = new ServiceProcess({
    name: 'router',
    entry: entryOf('../../router/main.ts'),
    readyPhrase: 'router ready',
    folder,
    env: {
      ROUTER_LISTEN_ADDRESS: addresses.router,
      ROUTER_REGISTRY_ADDRESSES: addresses.registry,
      ROUTER_QUEUE_PATH: join(folder, 'queue.db'),
      ROUTER_REFLECTION: 'true',
    },
  })
  const edge = new ServiceProcess({
    name: 'edge',
    entry: entryOf('../../edge/main.ts'),
    readyPhrase: 'edge ready',
    folder,
    env: {
      EDGE_LISTEN_ADDRESS: addresses.edge,
      EDGE_DEVICE_LISTEN_ADDRESS: at(devicePort),
      EDGE_REGISTRY_ADDRESSES: addresses.registry,
      EDGE_ROUTER_ADDRESSES: addresses.router,
      EDGE_METRICS_ADDRESS: '127.0.0.1:0',
      EDGE_AUTH: 'dev',
      ...edgeEnv,
    },
  })
  const services = [registry, router, edge]
  async function close(): Promise<void> {
    await Promise.all(services.map((service) => (service.running ? service.kill() : undefined)))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    await Promise.all(services.map((service) => service.start()))
  } catch (error) {
    await close()
    throw error
  }
  return { registry, router, edge, addresses, close }
}
