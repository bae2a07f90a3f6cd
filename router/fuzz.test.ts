import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { QueuedMessage } from '../gen/push/internal/v1/queue.ts'
import { ReportRequest, UplinkServiceDefinition } from '../gen/push/internal/v1/uplink.ts'
import { DeviceServiceDefinition } from '../gen/push/v1/devices.ts'
import { OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { PublishRequest, PublishServiceDefinition, PublishStreamRequest } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { fuzzed, fuzzTimeoutMs, mutated, wireMessage } from '../service-kit/testing/fuzz.ts'
import { expectFairEnds } from '../service-kit/testing/raw-calls.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { readRouterConfig } from './config.ts'
import { dispatchBench } from './dispatch/testing/dispatch-bench.ts'
import { startRouter } from './server.ts'

const log = recordingLog()
const closers = createClosers(silentLog, systemClock)
let folder: string
let connection: GrpcConnection

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'router-fuzz-'))
  const { address } = await startRouter({
    config: readRouterConfig({
      ROUTER_LISTEN_ADDRESS: '127.0.0.1:0',
      // Nobody listens there: what is well formed goes no further.
      ROUTER_REGISTRY_ADDRESSES: '127.0.0.1:1',
      ROUTER_QUEUE_PATH: join(folder, 'queue.sqlite'),
      ROUTER_DRAIN_GRACE_MS: '100',
    }),
    clock: systemClock,
    random: systemRandom,
    log,
    metrics: createMetrics(),
    closers,
    onFatal: (cause) => expect.unreachable(String(cause)),
  })
  connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  closers.add('connection', () => connection.close())
})

afterAll(async () => {
  await closers.close({ graceMs: 30_000 })
  rmSync(folder, { recursive: true })
})

const publish = PublishRequest.fromPartial({
  message: {
    target: { $case: 'deviceId', value: 'd1' },
    payload: Buffer.from('{"a":1}'),
    name: 'show',
    ttl: { seconds: 60, nanos: 0 },
  },
})
const requests = [
  PublishRequest.encode(publish),
  PublishStreamRequest.encode({ sequence: 1, publish }),
  ReportRequest.encode(
    ReportRequest.fromPartial({
      items: [{ item: { $case: 'lateAnswer', value: { deviceId: 'd1', messageId: 'm1', kind: 2 } } }],
    }),
  ),
].map((writer) => writer.finish())

const services = [PublishServiceDefinition, DeviceServiceDefinition, OperationsServiceDefinition, UplinkServiceDefinition]

test.for(services.map((service) => [service.fullName, service] as const))(
  '%s: whatever bytes come, each call is answered or refused, and nothing of it is a defect',
  { timeout: fuzzTimeoutMs },
  async ([, service]) => {
    await expectFairEnds(connection, service, requests, log)
    expect((await connection.client(HealthDefinition).check({ service: 'push.queue' }, { deadlineMs: 30_000 })).status).toBe(1)
  },
)

test('whatever lies in the queue: each record comes to an end, and those behind it go on', {
  timeout: fuzzTimeoutMs,
}, async () => {
  const bench = dispatchBench()
  const good = QueuedMessage.encode(bench.queued('m1', 'd1')).finish()
  const lease = bench.lease()
  let offset = 0
  await fc.assert(
    fc.asyncProperty(fc.oneof(mutated(good), wireMessage(), fc.uint8Array({ maxLength: 200 })), async (bytes) => {
      await bench.hand(lease, [[++offset, bytes]])
      await bench.clock.advance(1_000)
      expect(lease.commits.at(-1), `record ${offset}`).toBe(BigInt(offset + 1))
    }),
    fuzzed(300),
  )
  expect(bench.deadLetters.length).toBeGreaterThan(0)
  expect(bench.clock.pendingTimers).toBe(0)
})
