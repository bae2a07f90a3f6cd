import type { DeviceServer, DeviceServerOptions } from '../../edge/device-server.ts'
import { codecFor } from '../../edge/frame-codec.ts'
import { readEdgeConfig, startEdge } from '../../edge/index.ts'
import { type DeviceSocket, webSocketCarrier } from '../../edge/websocket.ts'
import { readRegistryConfig, startRegistry } from '../../registry/index.ts'
import type { RegistryStores } from '../../registry/stores.ts'
import { readRouterConfig, startRouter } from '../../router/index.ts'
import { createClosers } from '../../service-kit/closers.ts'
import type { ConnectionNotes } from '../fleet/tracked-socket.ts'
import type { PlaneOptions } from '../plane/plane.ts'
import { ClusterStore } from './cluster-store.ts'
import { DeviceLine } from './device-line.ts'
import { Network } from './network.ts'
import { QueueBroker } from './queue-broker.ts'
import { SimulatedProcess } from './simulated-process.ts'
import { type StepFate, storesOf } from './store-access.ts'
import type { World } from './world.ts'

/** What a simulated plane is made of. */
export interface PlaneParts
  extends Pick<PlaneOptions, 'registryClocksAheadMs' | 'routerCount' | 'edgeCount' | 'registryEnv' | 'routerEnv' | 'edgeEnv'> {
  /** Takes the place of what a registry reaches its store through: for rules broken on purpose. */
  readonly brokenStores?: ((stores: RegistryStores) => RegistryStores) | undefined
}

/** A place for one process after the other. */
export interface Place {
  readonly name: string
  readonly address: string
  readonly process: SimulatedProcess | undefined
  readonly running: boolean
  start(): void
}

interface DeviceDoor {
  readonly process: SimulatedProcess
  readonly options: DeviceServerOptions
  ready: boolean
  open: boolean
}

const protocol = 'push.v1.json'

/** Registries, routers and edges, each a process of its own as its `server.ts` starts it, between a store, a queue and a network of the simulation. */
export class SimulatedPlane {
  readonly world: World
  readonly network: Network
  readonly broker: QueueBroker
  readonly cluster: ClusterStore
  readonly registries: readonly Place[]
  readonly routers: readonly Place[]
  readonly edges: readonly Place[]
  /** What becomes of steps at the store; until told otherwise nothing goes wrong. */
  stepFateOf: () => StepFate
  readonly #doors = new Map<string, DeviceDoor>()

  constructor(world: World, parts: PlaneParts) {
    this.world = world
    this.network = new Network(world)
    this.broker = new QueueBroker(world)
    this.cluster = new ClusterStore(() => world.wallMs)
    this.stepFateOf = () => ({ stalledUntilMs: 0, requestMs: world.between(0.1, 1.5), answerMs: world.between(0.1, 1.5) })
    world.ports = {
      connect: (options) => this.network.connect(options),
      serve: (options) => this.network.serve(options),
      openQueue: (process) => this.broker.open(process),
      openStores: (process) => {
        const stores = storesOf(process, this.cluster, () => this.stepFateOf())
        return parts.brokenStores?.(stores) ?? stores
      },
      serveDevices: (process, options) => this.#serveDevices(process, options),
    }
    const addressOf = (kind: number, index: number) => `127.0.0.1:${7_000 + kind * 100 + index}`
    const registryAddresses = parts.registryClocksAheadMs.map((_, index) => addressOf(1, index))
    const routerAddresses = Array.from({ length: parts.routerCount }, (_, index) => addressOf(2, index))
    const edgeAddresses = Array.from({ length: parts.edgeCount }, (_, index) => addressOf(3, index))
    this.registries = registryAddresses.map((address, index) => {
      const config = readRegistryConfig({ REGISTRY_LISTEN_ADDRESS: address, ...parts.registryEnv })
      const aheadMs = parts.registryClocksAheadMs[index] ?? 0
      return this.#place(`registry-${index + 1}`, address, (kit) => startRegistry({ ...kit, config }), aheadMs)
    })
    this.routers = routerAddresses.map((address, index) => {
      const config = readRouterConfig({
        ROUTER_LISTEN_ADDRESS: address,
        ROUTER_REGISTRY_ADDRESSES: registryAddresses.join(','),
        ROUTER_KAFKA_BROKERS: '127.0.0.1:9092',
        ...parts.routerEnv,
      })
      return this.#place(`router-${index + 1}`, address, (kit) =>
        startRouter({ ...kit, config, onFatal: (cause) => world.defects.push(`router-${index + 1}: ${cause}`) }),
      )
    })
    this.edges = edgeAddresses.map((address, index) => {
      const config = readEdgeConfig({
        EDGE_NAME: `edge-${index + 1}`,
        EDGE_LISTEN_ADDRESS: address,
        EDGE_DEVICE_LISTEN_ADDRESS: `127.0.0.1:${7_400 + index}`,
        EDGE_REGISTRY_ADDRESSES: registryAddresses.join(','),
        EDGE_ROUTER_ADDRESSES: routerAddresses.join(','),
        EDGE_AUTH: 'dev',
        ...parts.edgeEnv,
      })
      return this.#place(`edge-${index + 1}`, address, (kit) => startEdge({ ...kit, config }))
    })
    for (const place of [...this.registries, ...this.routers, ...this.edges]) place.start()
  }

  /** Opens a device's connection to an edge that takes some, as a balancer chooses it. */
  dial(device: SimulatedProcess, token: string, notes: ConnectionNotes): DeviceLine {
    const line = openLine(this.world, device, notes)
    const doors = [...this.#doors.values()].filter(({ process, ready }) => ready && process.alive)
    if (doors.length === 0) {
      this.world.time.after(1, undefined, () => line.refused())
      return line
    }
    const { process, options } = this.world.pick(doors)
    this.world.time.after(this.world.between(0.5, 10), process, () => void this.#admit(process, options, token, line))
    return line
  }

  async #admit(process: SimulatedProcess, options: DeviceServerOptions, token: string, line: DeviceLine): Promise<void> {
    const verdict = await options.identity.authenticate({ text: token, from: 'header' })
    const codec = codecFor([protocol])
    if (!verdict.ok || codec === undefined || options.gate.backlogged() || this.#doors.get(process.name)?.open !== true) {
      line.refused()
      return
    }
    line.connected(process)
    const { edgeEnd } = line
    const shared = { metrics: options.metrics, log: process.log }
    options.admit({
      carrier: webSocketCarrier(edgeEnd as unknown as DeviceSocket, edgeEnd.connection as never, codec, shared),
      deviceId: verdict.deviceId,
      accountId: verdict.accountId ?? '',
      acknowledges: true,
      credentialEndsAt: Number.POSITIVE_INFINITY,
      credentialEndsAtMax: Number.POSITIVE_INFINITY,
    })
  }

  #serveDevices(process: SimulatedProcess, options: DeviceServerOptions): DeviceServer {
    const door: DeviceDoor = { process, options, ready: true, open: true }
    this.#doors.set(process.name, door)
    return {
      address: options.address,
      setReady(ready) {
        door.ready = ready
      },
      setOpen(open) {
        door.open = open
      },
      handshakeCount: 0,
      connectionCount: 0,
      limitsChanged() {},
      close: async () => {
        door.ready = door.open = false
      },
    }
  }

  #place(name: string, address: string, run: (kit: ProcessKit) => Promise<unknown>, aheadMs = 0): Place {
    const { world } = this
    let process: SimulatedProcess | undefined
    let starts = 0
    return {
      name,
      address,
      get process() {
        return process
      },
      get running() {
        return process?.alive === true && !process.paused
      },
      start() {
        if (process?.alive) return
        const started = new SimulatedProcess(world, `${name}#${++starts}`, aheadMs)
        process = started
        world.trace(() => `${started.name} starts`)
        const { clock, random, log, metrics } = started
        const closers = createClosers(log, clock)
        // In a turn of its own process.
        world.time.after(0, started, () => {
          run({ clock, random, log, metrics, closers }).catch((cause: unknown) => {
            if (started.alive) world.defects.push(`${started.name} cannot start: ${cause}`)
          })
        })
      },
    }
  }
}

type ProcessKit = Pick<SimulatedProcess, 'clock' | 'random' | 'log' | 'metrics'> & {
  readonly closers: ReturnType<typeof createClosers>
}

/** A connection whose sessions and messages are noted, as by the devices of the tests on real servers. */
function openLine(world: World, device: SimulatedProcess, notes: ConnectionNotes): DeviceLine {
  let session: { sessionId: string; openedAt: number; endedAt: number | undefined } | undefined
  const writtenHere = new Set<string>()
  let lost = false
  return new DeviceLine({
    world,
    device,
    onFrame(text) {
      const frame: { type?: string; session_id?: string; id?: string } = JSON.parse(text)
      world.trace(() => `${device.name} gets ${frame.type} ${frame.id ?? frame.session_id ?? ''}`)
      if (frame.type === 'welcome' && frame.session_id !== undefined) {
        session = { sessionId: frame.session_id, openedAt: world.wallMs, endedAt: lost ? world.wallMs : undefined }
        notes.sessions.push(session)
      } else if (frame.type === 'message' && frame.id !== undefined) {
        if (!notes.broughtBy.has(frame.id)) notes.broughtBy.set(frame.id, session?.sessionId ?? '')
        if (writtenHere.has(frame.id))
          world.writtenTwice.push(`${device.name} has got ${frame.id} twice in session ${session?.sessionId}`)
        writtenHere.add(frame.id)
      }
    },
    onLost() {
      lost = true
      if (session !== undefined) session.endedAt ??= world.wallMs
    },
  })
}
