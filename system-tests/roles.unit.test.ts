import { fromBinary } from '@bufbuild/protobuf'
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt'
import type { CompatServiceDefinition, Server } from 'nice-grpc'
import { Status } from 'nice-grpc-common'
import { HealthDefinition } from 'nice-grpc-server-health'
import { ServerReflectionService } from 'nice-grpc-server-reflection'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { edgeRoles } from '../edge/index.ts'
import { EdgeServiceDefinition } from '../gen/push/internal/v1/edge.ts'
import { InboxServiceDefinition } from '../gen/push/internal/v1/inbox.ts'
import { ReceiptServiceDefinition } from '../gen/push/internal/v1/receipts.ts'
import { RegistryServiceDefinition } from '../gen/push/internal/v1/registry.ts'
import { UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { DeviceServiceDefinition } from '../gen/push/v1/devices.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { registryRoles } from '../registry/index.ts'
import { routerRoles } from '../router/index.ts'
import { serviceTransport } from '../service-kit/client-transport.ts'
import { systemClock } from '../service-kit/clock.ts'
import { descriptorSet } from '../service-kit/descriptor-set.ts'
import { callErrorOf, PushError } from '../service-kit/errors.ts'
import { connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { type GrpcServer, ownServices, type ServedContext, serveGrpc } from '../service-kit/grpc-server.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { roles } from '../service-kit/peer-identity.ts'
import { openTlsFolder, type TlsFolder } from '../service-kit/testing/tls-fixture.ts'

const servers = [
  {
    role: 'registry',
    table: registryRoles,
    services: [RegistryServiceDefinition, InboxServiceDefinition, ReceiptServiceDefinition],
  },
  { role: 'edge', table: edgeRoles, services: [EdgeServiceDefinition] },
  {
    role: 'router',
    table: routerRoles,
    services: [PublishServiceDefinition, DeviceServiceDefinition, OperationsServiceDefinition, UplinkServiceDefinition],
  },
] as const

type AnyDefinition = (typeof servers)[number]['services'][number]

test('every RPC of every contract names its roles, and nothing else is named', () => {
  const contracts = fromBinary(FileDescriptorSetSchema, descriptorSet()).file
  const paths = contracts
    .filter((file) => file.package.startsWith('push.'))
    .flatMap((file) => file.service.flatMap(({ name, method }) => method.map((rpc) => `/${file.package}.${name}/${rpc.name}`)))
  expect(paths.length).toBeGreaterThan(30)
  const named = servers.flatMap(({ table }) => [...table.keys()])
  expect(named.toSorted()).toEqual(paths.toSorted())
  for (const { table } of servers) for (const allowed of table.values()) expect(allowed).not.toEqual([])
})

test('so does every RPC that servers add by themselves: health for everyone, reflection for every role', () => {
  const paths = [
    ...Object.values(HealthDefinition.methods).map(({ name }) => `/${HealthDefinition.fullName}/${name}`),
    ...Object.values(ServerReflectionService).map(({ path }) => path),
  ]
  expect(paths.length).toBeGreaterThanOrEqual(3)
  expect([...ownServices.keys()].toSorted()).toEqual(paths.toSorted())
})

describe('over TLS each role gets what the table says', () => {
  let folder: TlsFolder
  const running: GrpcServer[] = []
  const addresses = new Map<string, string>()
  beforeAll(async () => {
    folder = await openTlsFolder()
    for (const { role, table, services } of servers) {
      const server = await serveGrpc({
        address: '127.0.0.1:0',
        tls: await folder.open(role, [`role:${role}`]),
        roles: table,
        reflection: { descriptorSet: descriptorSet(), services: services.map(({ fullName }) => fullName) },
        services: (server) => {
          for (const definition of services) addStub(server, definition)
        },
        log: silentLog,
        metrics: createMetrics(),
        clock: systemClock,
      })
      running.push(server)
      addresses.set(role, server.address)
    }
  })
  afterAll(async () => {
    await Promise.all(running.map((server) => server.drain(0)))
    folder.close()
  })

  test.each([...roles, 'none'] as const)('%s', async (role) => {
    const uris = role === 'none' ? [] : [`role:${role}`, 'principal:someone']
    const own = await folder.open(`client-${role}`, uris)
    for (const { role: served, table, services } of servers) {
      const connection = connectGrpc({
        addresses: addresses.get(served) ?? '',
        transport: serviceTransport(own, false).to(served),
        log: silentLog,
        clock: systemClock,
      })
      for (const definition of services) {
        for (const { path, status } of await callAll(connection, definition)) {
          const allowed = table.get(path)
          const may = role !== 'none' && allowed !== 'everyone' && allowed?.includes(role)
          const refused = role === 'none' ? Status.UNAUTHENTICATED : Status.PERMISSION_DENIED
          expect([path, Status[status]]).toEqual([path, Status[may ? Status.UNIMPLEMENTED : refused]])
        }
      }
      const health = await connection.client(HealthDefinition).check({ service: '' }, { deadlineMs: 10_000 })
      expect(health.status).toBe(1)
      const reflection = await statusOf(
        connection.client(ServerReflectionService).serverReflectionInfo((async function* () {})()),
      )
      expect(Status[reflection]).toBe(Status[role === 'none' ? Status.UNAUTHENTICATED : Status.OK])
      connection.close()
    }
  })
})

/** Every method answers that it is not implemented: whoever is told so has got past the table. */
function addStub(server: Server<ServedContext>, definition: AnyDefinition): void {
  const implementation = Object.fromEntries(
    Object.entries(definition.methods).map(([name, { responseStream }]) => [
      name,
      responseStream
        ? // biome-ignore lint/correctness/useYield: it only fails.
          async function* () {
            throw new PushError('NOT_IMPLEMENTED', 'here nothing is')
          }
        : async () => {
            throw new PushError('NOT_IMPLEMENTED', 'here nothing is')
          },
    ]),
  )
  const add = server.add as (definition: CompatServiceDefinition, implementation: unknown) => void
  add(definition, implementation)
}

/** Calls every method once, with nothing in it. */
async function callAll(connection: GrpcConnection, definition: AnyDefinition): Promise<{ path: string; status: Status }[]> {
  const client = connection.client(definition as CompatServiceDefinition) as unknown as Record<
    string,
    (request: unknown) => Promise<unknown> | AsyncIterable<unknown>
  >
  return Promise.all(
    Object.entries(definition.methods).map(async ([key, { name, requestStream }]) => {
      const path = `/${definition.fullName}/${name}`
      return { path, status: await statusOf(client[key]?.(requestStream ? (async function* () {})() : {})) }
    }),
  )
}

async function statusOf(call: Promise<unknown> | AsyncIterable<unknown> | undefined): Promise<Status> {
  try {
    if (call !== undefined && Symbol.asyncIterator in call) for await (const _ of call);
    else await call
    return Status.OK
  } catch (error) {
    return callErrorOf(error).status
  }
}
