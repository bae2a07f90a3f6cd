import { test as base } from 'vitest'
import { systemClock } from '../clock.ts'
import type { GrpcClientOptions, GrpcConnection } from '../grpc-client.ts'
import { connectGrpc } from '../grpc-client.ts'
import type { GrpcServer, GrpcServerOptions } from '../grpc-server.ts'
import { serveGrpc } from '../grpc-server.ts'
import type { Metrics } from '../metrics.ts'
import { createMetrics } from '../metrics.ts'
import type { EchoBehaviour } from './echo-service.ts'
import { EchoDefinition, echoService } from './echo-service.ts'
import type { RecordingLog } from './recording-log.ts'
import { recordingLog } from './recording-log.ts'

/** Real servers and clients that end with the test. */
export interface GrpcFixture {
  readonly log: RecordingLog
  readonly metrics: Metrics
  /** Starts an echo server, on any port unless told otherwise. */
  serve(behaviour?: EchoBehaviour, options?: Partial<GrpcServerOptions>): Promise<GrpcServer>
  connect(addresses: string, options?: Partial<GrpcClientOptions>): GrpcConnection
}

/** `test` with the fixture `grpc`. */
export const test = base.extend<{ grpc: GrpcFixture }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads the names of needed fixtures from this pattern
  grpc: async ({}, use) => {
    const log = recordingLog()
    const metrics = createMetrics()
    const servers: GrpcServer[] = []
    const connections: GrpcConnection[] = []
    await use({
      log,
      metrics,
      async serve(behaviour, options) {
        const server = await serveGrpc({
          address: '127.0.0.1:0',
          services: (adding) => adding.add(EchoDefinition, echoService(behaviour)),
          log,
          metrics,
          clock: systemClock,
          ...options,
        })
        servers.push(server)
        return server
      },
      connect(addresses, options) {
        const connection = connectGrpc({ addresses, log, metrics, clock: systemClock, ...options })
        connections.push(connection)
        return connection
      },
    })
    for (const connection of connections) connection.close()
    await Promise.all(servers.map((server) => server.drain(0)))
  },
})
