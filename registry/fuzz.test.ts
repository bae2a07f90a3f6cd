import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { InboxServiceDefinition, ReadRequest, RemoveRequest, StoreRequest } from '../gen/push/internal/v1/inbox.ts'
import { ReceiptServiceDefinition, RecordRequest } from '../gen/push/internal/v1/receipts.ts'
import {
  LookupRequest,
  RegisterRequest,
  RegistryServiceDefinition,
  RenewEdgeRequest,
  UnregisterRequest,
} from '../gen/push/internal/v1/registry.ts'
import { MessageState } from '../gen/push/v1/message.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { systemRandom } from '../service-kit/random.ts'
import { fuzzTimeoutMs } from '../service-kit/testing/fuzz.ts'
import { expectFairEnds } from '../service-kit/testing/raw-calls.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { readRegistryConfig } from './config.ts'
import { receiptOf } from './receipts.suite.ts'
import { startRegistry } from './server.ts'
import { renewRequest } from './testing/test-edges.ts'
import { queued } from './testing/test-inbox.ts'
import { fullId, registerRequest } from './testing/test-registry.ts'

const log = recordingLog()
const closers = createClosers(silentLog, systemClock)
let folder: string
let connection: GrpcConnection

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'registry-fuzz-'))
  const config = readRegistryConfig({
    REGISTRY_LISTEN_ADDRESS: '127.0.0.1:0',
    REGISTRY_STORE: 'sqlite',
    REGISTRY_SQLITE_PATH: join(folder, 'registry.sqlite'),
  })
  const { address } = await startRegistry({
    config,
    clock: systemClock,
    random: systemRandom,
    log,
    metrics: createMetrics(),
    closers,
  })
  connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  closers.add('connection', () => connection.close())
})

afterAll(async () => {
  await closers.close({ graceMs: 30_000 })
  rmSync(folder, { recursive: true })
})

const message = queued({ id: '019b1d0e-0000-7000-8000-000000000001' }, 'd1')
const key = { deviceId: 'd1', messageId: message.messageId, acceptTime: message.acceptTime }
const requests = [
  RegisterRequest.encode(registerRequest([{ deviceId: 'd1', sessionId: 's1', accountId: 'a' }])),
  UnregisterRequest.encode({ sessions: [{ deviceId: 'd1', sessionId: fullId('s1'), epoch: 1 }] }),
  RenewEdgeRequest.encode(renewRequest('edge-a-12345678')),
  LookupRequest.encode(LookupRequest.fromPartial({ deviceIds: ['d1', 'd2'] })),
  StoreRequest.encode(StoreRequest.fromPartial({ entries: [{ deviceId: 'd1', message }] })),
  RemoveRequest.encode(RemoveRequest.fromPartial({ entries: [key] })),
  ReadRequest.encode(ReadRequest.fromPartial({ deviceId: 'd1' })),
  RecordRequest.encode(RecordRequest.fromPartial({ receipts: [receiptOf('m1', MessageState.WRITTEN)] })),
].map((writer) => writer.finish())

test.for(
  [RegistryServiceDefinition, InboxServiceDefinition, ReceiptServiceDefinition].map(
    (service) => [service.fullName, service] as const,
  ),
)(
  '%s: whatever bytes come, each call is answered or refused, and nothing of it is a defect',
  { timeout: fuzzTimeoutMs },
  async ([, service]) => {
    await expectFairEnds(connection, service, requests, log)
    expect((await connection.client(HealthDefinition).check({ service: '' }, { deadlineMs: 30_000 })).status).toBe(1)
  },
)
