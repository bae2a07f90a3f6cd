import { vi } from 'vitest'

// The production code of all services runs in the simulation as it is. Only what would reach out of the process is another: calls, devices' sockets,
// Kafka and Cassandra. Each stand-in knows its simulation by the clock of the process that asks. To be imported before anything of production.

type Asking = { readonly clock: unknown }

vi.mock('../../service-kit/grpc-client.ts', async () => {
  const { processOf } = await import('./simulated-process.ts')
  return { connectGrpc: (options: Asking) => processOf(options.clock).world.ports.connect(options as never) }
})

vi.mock('../../service-kit/grpc-server.ts', async () => {
  const { processOf } = await import('./simulated-process.ts')
  return { serveGrpc: async (options: Asking) => processOf(options.clock).world.ports.serve(options as never) }
})

vi.mock('../../router/queue/open-queue.ts', async () => {
  const { processOf } = await import('./simulated-process.ts')
  return {
    openQueue(_: unknown, { clock }: Asking) {
      const process = processOf(clock)
      return process.world.ports.openQueue(process)
    },
  }
})

vi.mock('../../registry/cassandra/stores.ts', async () => {
  const { processOf } = await import('./simulated-process.ts')
  return {
    async openCassandraStores(_: unknown, { clock }: Asking) {
      const process = processOf(clock)
      return process.world.ports.openStores(process)
    },
  }
})

vi.mock('../../edge/device-server.ts', async () => {
  const { processOf } = await import('./simulated-process.ts')
  return {
    async serveDevices(options: Asking) {
      const process = processOf(options.clock)
      return process.world.ports.serveDevices(process, options as never)
    },
  }
})
