import { createServer } from 'node:net'
import { Status } from 'nice-grpc'
import { expect, test as plainTest, vi } from 'vitest'
import { channelTarget } from './address-resolver.ts'
import { callErrorOf, PushError } from './errors.ts'
import { EchoDefinition } from './testing/echo-service.ts'
import { test } from './testing/grpc-fixture.ts'
import { metricValue } from './testing/metric-value.ts'
import { SteeredClock } from './testing/steered-clock.ts'

const method = '/test.Echo/Unary'
const failureOf = async (call: Promise<unknown>) =>
  callErrorOf(
    await call.then(
      () => 'no failure',
      (thrown: unknown) => thrown,
    ),
  )

test('1200 calls that time out leave a bystander on the same connection alone', async ({ grpc }) => {
  const peers = new Set<string>()
  const release = Promise.withResolvers<void>()
  const server = await grpc.serve({
    async unary(request, context) {
      peers.add(context.peer)
      if (request.text === 'bystander') await release.promise
      else await new Promise((_resolve, reject) => context.signal.addEventListener('abort', () => reject(context.signal.reason)))
      return request
    },
  })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  const bystander = echo.unary({ text: 'bystander' })
  // Few at a time: a client that stands still for longer than its slack gives all that are under way up by itself.
  for (let round = 0; round < 40; round++) {
    const calls = Array.from({ length: 30 }, () => failureOf(echo.unary({ text: 'stuck' }, { deadlineMs: 40 })))
    for (const failure of await Promise.all(calls)) expect(failure.status).toBe(Status.DEADLINE_EXCEEDED)
  }
  release.resolve()
  expect(await bystander).toEqual({ text: 'bystander' })
  expect(peers.size).toBe(1)
})

test('1500 unary calls whose callers gave up leave a bystander alone too, and each caller is told at once', async ({ grpc }) => {
  const release = Promise.withResolvers<void>()
  const server = await grpc.serve({
    async unary(request) {
      await release.promise
      return request
    },
  })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  const bystander = echo.unary({ text: 'bystander' })
  for (let round = 0; round < 15; round++) {
    const callers = new AbortController()
    const calls = Array.from({ length: 100 }, () =>
      failureOf(echo.unary({ text: '' }, { deadlineMs: 60_000, signal: callers.signal })),
    )
    callers.abort()
    for (const failure of await Promise.all(calls)) expect(failure.status).toBe(Status.CANCELLED)
  }
  release.resolve()
  expect(await bystander).toEqual({ text: 'bystander' })
})

test('a server that takes connections but never answers costs no more than the deadline and its slack', async ({ grpc }) => {
  const deaf = createServer()
  await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve))
  const bound = deaf.address()
  const port = typeof bound === 'object' ? bound?.port : undefined
  try {
    const echo = grpc.connect(`127.0.0.1:${port}`).client(EchoDefinition)
    const startedAt = performance.now()
    const failure = await failureOf(echo.unary({ text: '' }, { deadlineMs: 100 }))
    expect(failure.status).toBe(Status.DEADLINE_EXCEEDED)
    // Not only after what a dead connection is noticed by.
    expect(performance.now() - startedAt).toBeLessThan(15_000)
    expect(await metricValue(grpc.metrics, 'push_grpc_client_unanswered_total', { method })).toBe(1)
  } finally {
    deaf.close()
  }
})

test('calls go round all servers of a list, names and numbers mixed', async ({ grpc }) => {
  const served = [0, 0]
  const count = (index: number) => async (request: { text: string }) => {
    served[index] = (served[index] ?? 0) + 1
    return request
  }
  const first = await grpc.serve({ unary: count(0) })
  const second = await grpc.serve({ unary: count(1) })
  const connection = grpc.connect(`${first.address},localhost:${second.address.split(':')[1]}`)
  const echo = connection.client(EchoDefinition)
  await expect
    .poll(async () => {
      await echo.unary({ text: '' })
      return Math.min(...served)
    })
    .toBeGreaterThan(3)
})

test('when one of two servers goes, calls go on at the other; when it is back, it gets calls again', async ({ grpc }) => {
  const served: string[] = []
  const serving = (name: string) => ({
    unary: async (request: { text: string }) => {
      served.push(name)
      return request
    },
  })
  const first = await grpc.serve(serving('first'))
  const second = await grpc.serve(serving('second'))
  const echo = grpc.connect(`${first.address},${second.address}`, { reconnectCapMs: 200 }).client(EchoDefinition)
  const call = () => echo.unary({ text: '' }, { deadlineMs: 10_000, retries: 5 })
  const bothServe = async () => {
    await call()
    return new Set(served.slice(-4)).size
  }
  await expect.poll(bothServe).toBe(2)
  await first.drain(0)
  served.length = 0
  for (let index = 0; index < 50; index++) await call()
  expect(new Set(served)).toEqual(new Set(['second']))
  await grpc.serve(serving('first again'), { address: first.address })
  await expect.poll(bothServe, { timeout: 10_000 }).toBe(2)
})

test('a name given as dns:/// is dialled', async ({ grpc }) => {
  const server = await grpc.serve()
  const connection = grpc.connect(`dns:///localhost:${server.address.split(':')[1]}`)
  await connection.waitReady(10_000)
  expect(await connection.client(EchoDefinition).unary({ text: 'hello' })).toEqual({ text: 'hello' })
})

plainTest.each(['', 'host', 'host:0', 'a:1,', 'dns:///', 'http://a:1'])('%j is no address to dial', (addresses) => {
  expect(() => channelTarget(addresses)).toThrow(TypeError)
})

test('nobody there is told within the time to wait', async ({ grpc }) => {
  const server = await grpc.serve()
  await server.drain(0)
  const connection = grpc.connect(server.address)
  await expect(connection.waitReady(200)).rejects.toThrow(`none of ${server.address} answered within 200 ms`)
  expect((await failureOf(connection.client(EchoDefinition).unary({ text: '' }))).status).toBe(Status.UNAVAILABLE)
})

test('only UNAVAILABLE is retried, as often as asked, and counted', async ({ grpc }) => {
  let calls = 0
  const server = await grpc.serve({
    unary: async (request) => {
      calls++
      if (request.text === 'away') throw new PushError('REGISTRY_UNAVAILABLE', 'registry storage is unavailable')
      throw new PushError('INVALID_REQUEST', 'no')
    },
  })
  const echo = grpc.connect(server.address, { retryBaseMs: 1, retryCapMs: 2 }).client(EchoDefinition)
  expect((await failureOf(echo.unary({ text: 'away' }))).reason).toBe('REGISTRY_UNAVAILABLE')
  expect(calls).toBe(1)
  expect((await failureOf(echo.unary({ text: 'away' }, { retries: 3, deadlineMs: 10_000 }))).reason).toBe('REGISTRY_UNAVAILABLE')
  expect(calls).toBe(5)
  expect((await failureOf(echo.unary({ text: 'wrong' }, { retries: 3 }))).reason).toBe('INVALID_REQUEST')
  expect(calls).toBe(6)
  expect(await metricValue(grpc.metrics, 'push_grpc_client_retries_total', { method })).toBe(3)
})

test('retries end inside the deadline', async ({ grpc }) => {
  let calls = 0
  const server = await grpc.serve({
    unary: async () => {
      calls++
      throw new PushError('DRAINING', 'leaving', {}, { retryAfterMs: 20_000 })
    },
  })
  const clock = new SteeredClock()
  const sleep = vi.spyOn(clock, 'sleep')
  const echo = grpc.connect(server.address, { clock }).client(EchoDefinition)
  let ended = false
  const failure = failureOf(echo.unary({ text: '' }, { retries: 1_000, deadlineMs: 100_000 })).finally(() => {
    ended = true
  })
  for (let wait = 1; !ended; wait++) {
    await expect.poll(() => ended || sleep.mock.calls.length === wait).toBe(true)
    await clock.advance(22_000)
  }
  expect((await failure).reason).toBe('DRAINING')
  // At 0, 22, 44, 66 and 88 s: one more wait would end after the deadline.
  expect(calls).toBe(5)
})

test('a caller that gives up between retries is told at once, and nothing is sent for one that had given up before', async ({
  grpc,
}) => {
  let calls = 0
  const server = await grpc.serve({
    unary: async () => {
      calls++
      throw new PushError('DRAINING', 'leaving', {}, { retryAfterMs: 60_000 })
    },
  })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  const caller = new AbortController()
  const failure = failureOf(echo.unary({ text: '' }, { retries: 5, signal: caller.signal }))
  await expect.poll(() => calls).toBe(1)
  caller.abort()
  expect((await failure).status).toBe(Status.CANCELLED)
  expect((await failureOf(echo.unary({ text: '' }, { deadlineMs: 10_000, signal: caller.signal }))).status).toBe(Status.CANCELLED)
  expect(calls).toBe(1)
})

test('a stream without a deadline stays open, and its signal ends it', async ({ grpc }) => {
  const server = await grpc.serve()
  const echo = grpc.connect(server.address).client(EchoDefinition)
  const ending = new AbortController()
  const received: string[] = []
  const failure = failureOf(
    (async () => {
      async function* requests() {
        yield { text: 'one' }
        await new Promise((resolve) => ending.signal.addEventListener('abort', resolve))
      }
      for await (const { text } of echo.bidi(requests(), { signal: ending.signal })) received.push(text)
    })(),
  )
  await expect.poll(() => received).toEqual(['one'])
  ending.abort()
  expect((await failure).status).toBe(Status.CANCELLED)
})

test('a stream with a deadline ends by it', async ({ grpc }) => {
  const server = await grpc.serve({
    async *serverStream(_request, context) {
      yield { text: 'first' }
      await new Promise((_resolve, reject) => context.signal.addEventListener('abort', () => reject(context.signal.reason)))
    },
  })
  const echo = grpc.connect(server.address).client(EchoDefinition)
  const reading = (async () => {
    for await (const _ of echo.serverStream({ text: '' }, { deadlineMs: 50 }));
  })()
  expect((await failureOf(reading)).status).toBe(Status.DEADLINE_EXCEEDED)
})

test('a deadline that no timer could keep is refused', async ({ grpc }) => {
  const echo = grpc.connect('127.0.0.1:1').client(EchoDefinition)
  await expect(echo.unary({ text: '' }, { deadlineMs: 0 })).rejects.toThrow(RangeError)
  await expect(echo.unary({ text: '' }, { deadlineMs: 2 ** 31 })).rejects.toThrow(RangeError)
})
