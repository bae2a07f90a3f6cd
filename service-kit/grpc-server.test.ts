import { Status } from 'nice-grpc'
import { HealthDefinition } from 'nice-grpc-server-health'
import { ServerReflectionService } from 'nice-grpc-server-reflection'
import { ServerReflectionRequest } from 'nice-grpc-server-reflection/lib/proto/grpc/reflection/v1/reflection_pb.js'
import { expect } from 'vitest'
import { descriptorSet } from './descriptor-set.ts'
import { callErrorOf } from './errors.ts'
import { PortTakenError } from './listen-address.ts'
import { EchoDefinition } from './testing/echo-service.ts'
import { test } from './testing/grpc-fixture.ts'
import { metricValue } from './testing/metric-value.ts'
import { SteeredClock } from './testing/steered-clock.ts'

const failureOf = async (call: Promise<unknown>) =>
  callErrorOf(
    await call.then(
      () => 'no failure',
      (thrown: unknown) => thrown,
    ),
  )

test('the address is the real one, and a taken port is a named error', async ({ grpc }) => {
  const server = await grpc.serve()
  expect(server.address).toMatch(/^127\.0\.0\.1:[1-9]\d*$/)
  const second = grpc.serve({}, { address: server.address })
  await expect(second).rejects.toBeInstanceOf(PortTakenError)
  await expect(second).rejects.toThrow(`${server.address} is taken`)
})

test('health tells what is serving', async ({ grpc }) => {
  const server = await grpc.serve()
  const health = grpc.connect(server.address).client(HealthDefinition)
  expect(await health.check({ service: '' })).toEqual({ status: 1 })
  expect((await failureOf(health.check({ service: 'queue' }))).status).toBe(Status.NOT_FOUND)
  server.setServing('queue', false)
  expect(await health.check({ service: 'queue' })).toEqual({ status: 2 })
  server.setServing('queue', true)
  expect(await health.check({ service: 'queue' })).toEqual({ status: 1 })
})

test('calls are counted by method and status, and timed', async ({ grpc }) => {
  const server = await grpc.serve({
    unary: async (request) => (request.text === 'bad' ? Promise.reject(new Error('bug')) : request),
  })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  await echo.unary({ text: 'good' })
  await echo.unary({ text: 'bad' }).catch(() => {})
  const method = '/test.Echo/Unary'
  expect(await metricValue(grpc.metrics, 'push_grpc_server_calls_total', { method, status: 'OK' })).toBe(1)
  expect(await metricValue(grpc.metrics, 'push_grpc_server_calls_total', { method, status: 'INTERNAL' })).toBe(1)
  expect(await metricValue(grpc.metrics, 'push_grpc_server_latency_seconds_count', { method, status: 'OK' })).toBe(1)
  expect(await metricValue(grpc.metrics, 'push_grpc_server_calls_active', { method })).toBe(0)
})

test('a message over the limit fails its own call and no other', async ({ grpc }) => {
  const server = await grpc.serve({}, { maxReceiveBytes: 1000 })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  expect((await failureOf(echo.unary({ text: 'x'.repeat(2000) }))).status).toBe(Status.RESOURCE_EXHAUSTED)
  expect(await echo.unary({ text: 'short' })).toEqual({ text: 'short' })
})

test('draining lets a call finish, says not serving first, and takes no new connection', async ({ grpc }) => {
  const release = Promise.withResolvers<void>()
  const entered = Promise.withResolvers<void>()
  const server = await grpc.serve({
    async unary(request) {
      entered.resolve()
      await release.promise
      return request
    },
  })
  const answer = grpc.connect(server.address).client(EchoDefinition).unary({ text: 'slow' })
  await entered.promise
  const drained = server.drain(10_000)
  expect(server.draining.aborted).toBe(true)
  await expect(grpc.connect(server.address).waitReady(300)).rejects.toThrow('answered within 300 ms')
  release.resolve()
  expect(await answer).toEqual({ text: 'slow' })
  await drained
})

test('a health watch and other calls that go on for ever end at once when draining', async ({ grpc }) => {
  const watching = Promise.withResolvers<void>()
  const server = await grpc.serve({
    async *serverStream(_request, context) {
      context.abortOnTerminate()
      watching.resolve()
      yield { text: 'first' }
      await new Promise((_resolve, reject) => context.signal.addEventListener('abort', () => reject(context.signal.reason)))
    },
  })
  const connection = grpc.connect(server.address)
  const statuses: number[] = []
  const health = (async () => {
    for await (const { status } of connection.client(HealthDefinition).watch({ service: '' })) statuses.push(status)
  })()
  const stream = (async () => {
    for await (const _ of connection.client(EchoDefinition).serverStream({ text: '' }));
  })()
  const failures = Promise.all([failureOf(health), failureOf(stream)])
  await watching.promise
  await expect.poll(() => statuses).toEqual([1])
  await server.drain(60_000)
  for (const failure of await failures) expect(failure).toMatchObject({ status: Status.UNAVAILABLE, reason: 'DRAINING' })
})

test('what has not finished by the end of the grace is cut', async ({ grpc }) => {
  const entered = Promise.withResolvers<void>()
  const server = await grpc.serve({
    unary() {
      entered.resolve()
      return new Promise(() => {})
    },
  })
  const cut = failureOf(grpc.connect(server.address).client(EchoDefinition).unary({ text: 'stuck' }))
  await entered.promise
  await server.drain(50)
  expect([Status.UNAVAILABLE, Status.CANCELLED]).toContain((await cut).status)
  expect(grpc.log.withPhrase('grpc calls were cut at the end of the grace')).toHaveLength(1)
})

test('a call with a deadline sees its signal abort on the server when that has passed', async ({ grpc }) => {
  const aborted = Promise.withResolvers<void>()
  const server = await grpc.serve({
    unary: (_request, context) =>
      new Promise((_resolve, reject) => {
        context.signal.addEventListener('abort', () => {
          aborted.resolve()
          reject(context.signal.reason)
        })
      }),
  })
  // On a clock that stands still the client never gives up by itself: however slow the machine is, the server ends the call.
  const connection = grpc.connect(server.address, { clock: new SteeredClock() })
  const failure = await failureOf(connection.client(EchoDefinition).unary({ text: '' }, { deadlineMs: 300 }))
  expect(failure.status).toBe(Status.DEADLINE_EXCEEDED)
  await aborted.promise
  // Not a defect, and not told as one.
  expect(grpc.log.entries.filter((entry) => entry.level === 'error')).toEqual([])
})

test('connections turn over at their maximum age without failing calls', async ({ grpc }) => {
  const peers = new Set<string>()
  const server = await grpc.serve(
    {
      async unary(request, context) {
        peers.add(context.peer)
        return request
      },
    },
    { maxConnectionAgeMs: 300 },
  )
  const echo = grpc.connect(server.address).client(EchoDefinition)
  await expect
    .poll(
      async () => {
        await echo.unary({ text: '' }, { deadlineMs: 10_000, retries: 10 })
        return peers.size
      },
      { timeout: 30_000, interval: 20 },
    )
    .toBeGreaterThan(2)
})

test('reflection lists the services it is switched on for', async ({ grpc }) => {
  const services = ['push.v1.PublishService']
  const server = await grpc.serve({}, { reflection: { descriptorSet: descriptorSet(), services } })
  const reflection = grpc.connect(server.address).client(ServerReflectionService)
  const request = new ServerReflectionRequest()
  request.setListServices('*')
  const listed: string[] = []
  async function* requests() {
    yield request
  }
  for await (const answer of reflection.serverReflectionInfo(requests())) {
    for (const service of answer.getListServicesResponse()?.getServiceList() ?? []) listed.push(service.getName())
  }
  expect(listed).toEqual(services)
})

test('without the switch there is no reflection', async ({ grpc }) => {
  const server = await grpc.serve()
  const reflection = grpc.connect(server.address).client(ServerReflectionService)
  async function* requests() {
    yield new ServerReflectionRequest()
  }
  const asking = (async () => {
    for await (const _ of reflection.serverReflectionInfo(requests()));
  })()
  expect((await failureOf(asking)).status).toBe(Status.UNIMPLEMENTED)
})
