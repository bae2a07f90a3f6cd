import { Status } from 'nice-grpc-common'
import { expect, onTestFinished, test } from 'vitest'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { callErrorOf, PushError } from '../../service-kit/errors.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import type { Act } from '../audit/audit-log.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import { createReceipts } from '../dispatch/receipts.ts'
import type { MessageQueue } from '../queue/message-queue.ts'
import { receipt, startReceiptRegistry } from '../testing/receipt-registry.ts'
import { createMessageQueries } from './message-queries.ts'
import { createPermissions } from './permissions.ts'
import { type Policy, parsePolicy } from './policy-file.ts'
import { createPublishService } from './publish-service.ts'

const id = '0197c2d4-5e6f-7a81-92b3-c4d5e6f70819'
const bound = { deadlineMs: 30_000 }
const nobody = (): never => {
  throw new Error('these calls need neither queue nor dispatch')
}

/** The real service over gRPC, with the real writer of receipts, before a registry in memory. `recorded`: what was put on record. */
async function bench({ watchCountMax = 10, policy }: { watchCountMax?: number; policy?: Policy } = {}) {
  const recorded: Act[] = []
  const audit = { fails: false }
  const registry = await startReceiptRegistry()
  const parts = { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() }
  const receipts = createReceipts({ registry: registry.connection, ...parts, callDeadlineMs: 10_000 })
  const permissions = createPermissions(() => policy, systemClock)
  const queries = createMessageQueries({
    permissions,
    audit: {
      async record(act) {
        if (audit.fails) throw new PushError('AUDIT_UNAVAILABLE', 'nowhere')
        recorded.push(act)
      },
    },
    registry: registry.connection,
    receipts,
    ...parts,
    callDeadlineMs: 10_000,
    watchCountMax,
  })
  const server = await serveGrpc({
    address: '127.0.0.1:0',
    ...parts,
    services: (adding) =>
      adding.add(
        PublishServiceDefinition,
        createPublishService({
          permissions,
          checkFanOut: () => undefined,
          streamInFlightMax: 10,
          queue: { publish: nobody } as unknown as MessageQueue,
          dispatcher: { deliverDirect: nobody } as unknown as Dispatcher,
          acceptance: { accept: nobody },
          audit: { decide: nobody },
          ...parts,
          queries,
        }),
      ),
  })
  const connection = connectGrpc({ addresses: server.address, log: silentLog, clock: systemClock })
  onTestFinished(async () => {
    connection.close()
    await server.drain(0)
    await registry.stop()
  })
  return { registry, server, recorded, audit, client: connection.client(PublishServiceDefinition) }
}

async function failureOf(call: Promise<unknown>) {
  try {
    await call
  } catch (error) {
    return callErrorOf(error)
  }
  throw new Error('the call was answered')
}

async function all<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = []
  for await (const item of stream) items.push(item)
  return items
}

const stored = (deviceId = 'd', acceptTime = 1_000_001) =>
  receipt(id, { deviceId, state: MessageState.STORED, time: 10, acceptTime })

test('GetMessage gives one outcome a device, and when the message expires', async () => {
  const { registry, client } = await bench()
  registry.add(
    { ...stored('b'), expireTime: 4_000_000_000_000_000 },
    receipt(id, { deviceId: 'a', state: MessageState.COMPLETED, more: { result: Buffer.from('{"ok":1}') } }),
  )
  const answer = await client.getMessage({ messageId: id }, bound)
  expect(answer).toMatchObject({ messageId: id, expireTime: { seconds: expect.any(Number) } })
  expect(answer.devices).toMatchObject([
    { deviceId: 'a', final: true, outcome: { state: MessageState.COMPLETED }, result: Buffer.from('{"ok":1}') },
    { deviceId: 'b', final: false, outcome: { state: MessageState.STORED } },
  ])
})

test('a message of which nothing is recorded is MESSAGE_UNKNOWN, with what that may mean', async () => {
  const { client } = await bench()
  const failure = await failureOf(client.getMessage({ messageId: id }, bound))
  expect(failure).toMatchObject({ status: Status.NOT_FOUND, reason: 'MESSAGE_UNKNOWN', metadata: { message_id: id } })
  expect(failure.message).toMatch(/may still be queued.*receipts NONE/)
})

test('what is no message id is refused by every call, before anybody is asked', async () => {
  const { registry, client } = await bench()
  for (const messageId of ['', 'm1', id.toUpperCase(), `${id}0`, id.replace('7a81', '4a81'), `${id}\n`]) {
    for (const call of [
      () => client.getMessage({ messageId }, bound),
      () => all(client.watchMessage({ messageId }, bound)),
      () => client.cancelMessage({ messageId }, bound),
    ]) {
      expect(await failureOf(call())).toMatchObject({ reason: 'INVALID_REQUEST', violations: [{ field: 'message_id' }] })
    }
  }
  expect(registry.getCount).toBe(0)
})

test('a registry that fails makes the calls UNAVAILABLE', async () => {
  const { registry, client } = await bench()
  registry.add(stored())
  registry.fails = new PushError('BACKLOG_FULL', 'too much')
  const unavailable = { status: Status.UNAVAILABLE, reason: 'REGISTRY_UNAVAILABLE' }
  expect(await failureOf(client.getMessage({ messageId: id }, bound))).toMatchObject(unavailable)
  expect(await failureOf(client.cancelMessage({ messageId: id }, bound))).toMatchObject(unavailable)
})

test('WatchMessage follows a message over the wire to its end', async () => {
  const { registry, client } = await bench()
  registry.add(stored())
  const states: (MessageState | undefined)[] = []
  for await (const { device } of client.watchMessage({ messageId: id }, bound)) {
    states.push(device?.outcome?.state)
    if (states.length === 1) registry.add(receipt(id, { state: MessageState.ACKNOWLEDGED, time: 20 }))
  }
  expect(states).toEqual([MessageState.STORED, MessageState.ACKNOWLEDGED])
})

test('a watch ends at once when the router drains, and says so', async () => {
  const { registry, client, server } = await bench()
  registry.add(stored())
  const ended = failureOf(all(client.watchMessage({ messageId: id })))
  await expect.poll(() => registry.getCount).toBeGreaterThan(0)
  const drained = server.drain(10_000)
  expect(await ended).toMatchObject({ status: Status.UNAVAILABLE, reason: 'DRAINING' })
  await drained
})

test('CancelMessage removes a stored message at its own accept time, then records that', async () => {
  const { registry, client } = await bench()
  registry.add(stored('a', 1_000_001), stored('b', 2_000_002))
  const answer = await client.cancelMessage({ messageId: id }, bound)
  expect(answer.removedCount).toBe(2)
  expect(answer.devices.map(({ outcome, final }) => [outcome?.state, final])).toEqual([
    [MessageState.CANCELLED, true],
    [MessageState.CANCELLED, true],
  ])
  expect(registry.removed).toEqual([
    { deviceId: 'a', messageId: id, acceptTime: 1_000_001 },
    { deviceId: 'b', messageId: id, acceptTime: 2_000_002 },
  ])
  expect(registry.of(id).map(({ outcome }) => outcome?.state)).toEqual([
    MessageState.STORED,
    MessageState.STORED,
    MessageState.CANCELLED,
    MessageState.CANCELLED,
  ])
})

test('a repeated cancel removes nothing more and shows that it is done', async () => {
  const { registry, client } = await bench()
  registry.add(stored())
  await client.cancelMessage({ messageId: id }, bound)
  const again = await client.cancelMessage({ messageId: id }, bound)
  expect(again).toMatchObject({ removedCount: 0, devices: [{ outcome: { state: MessageState.CANCELLED } }] })
  expect(registry.removed).toHaveLength(1)
})

test('of a message that some devices have answered only the stored ones are taken back', async () => {
  const { registry, client } = await bench()
  registry.add(stored('a'), stored('b'), receipt(id, { deviceId: 'a', state: MessageState.ACKNOWLEDGED, time: 20 }))
  const answer = await client.cancelMessage({ messageId: id }, bound)
  expect(answer.removedCount).toBe(1)
  expect(registry.removed.map(({ deviceId }) => deviceId)).toEqual(['b'])
})

test.each([
  ['delivered', [receipt(id, { state: MessageState.ACKNOWLEDGED })]],
  ['written again since, its answer awaited', [stored(), receipt(id, { state: MessageState.WRITTEN, time: 20 })]],
  ['expired in the inbox', [{ ...stored(), expireTime: 1 }]],
  ['dropped', [stored(), receipt(id, { state: MessageState.DROPPED, more: { time: 20 } })]],
  ['in the queue', []],
])('a message that is %s cannot be taken back', async (_what, rows) => {
  const { registry, client } = await bench()
  registry.add(...rows)
  expect(await client.cancelMessage({ messageId: id }, bound)).toMatchObject({
    removedCount: 0,
    devices: { length: rows.length && 1 },
  })
  expect(registry.removed).toEqual([])
  expect(registry.of(id)).toHaveLength(rows.length)
})

test('a cancel whose record fails is UNAVAILABLE, and a repeat finishes it', async () => {
  const { registry, client } = await bench()
  registry.add(stored())
  registry.refusesRecords = true
  expect(await failureOf(client.cancelMessage({ messageId: id }, bound))).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  expect(registry.of(id)).toHaveLength(1)
  registry.refusesRecords = false
  expect(await client.cancelMessage({ messageId: id }, bound)).toMatchObject({ removedCount: 1 })
  expect(registry.of(id).at(-1)?.outcome).toMatchObject({ state: MessageState.CANCELLED, reason: StateReason.UNSPECIFIED })
})

test('above its bound a watch is refused', async () => {
  const { client } = await bench({ watchCountMax: 0 })
  expect(await failureOf(all(client.watchMessage({ messageId: id }, bound)))).toMatchObject({ reason: 'RATE_EXCEEDED' })
})

test('a message of another publisher is as unknown as one that does not exist, to read, to follow and to take back', async () => {
  const { registry, client } = await bench({
    policy: parsePolicy('{ principals: { someone: { operations: [messages.read, messages.cancel] } } }', 'policy'),
  })
  registry.add(receipt(id, { state: MessageState.STORED, time: 10, more: { principal: 'somebody else' } }))
  const failure = await failureOf(client.getMessage({ messageId: id }, bound))
  expect(failure).toMatchObject({ reason: 'MESSAGE_UNKNOWN' })
  const other = id.replace(/.$/, '8')
  expect((await failureOf(client.getMessage({ messageId: other }, bound))).message).toBe(failure.message.replace(id, other))
  expect(await client.cancelMessage({ messageId: id }, bound)).toEqual({ removedCount: 0, devices: [] })
  expect(registry.removed).toEqual([])
  const watching = new AbortController()
  setTimeout(() => watching.abort(), 300)
  await expect(all(client.watchMessage({ messageId: id }, { signal: watching.signal }))).rejects.toMatchObject({
    name: 'AbortError',
  })
})

test('operators whom the policy lets see everybody’s messages see them, and take them back only if it lets them', async () => {
  const policyOf = (operations: string) =>
    bench({ policy: parsePolicy(`{ principals: { anonymous: { operations: [${operations}] } } }`, 'policy') })
  const foreign = receipt(id, { state: MessageState.STORED, time: 10, more: { principal: 'somebody else' } })
  const reading = await policyOf('messages.read')
  reading.registry.add(foreign)
  expect(await reading.client.getMessage({ messageId: id }, bound)).toMatchObject({ devices: [{ deviceId: 'd' }] })
  expect(await reading.client.cancelMessage({ messageId: id }, bound)).toMatchObject({ removedCount: 0 })
  const cancelling = await policyOf('messages.cancel')
  cancelling.registry.add(foreign)
  expect(await failureOf(cancelling.client.getMessage({ messageId: id }, bound))).toMatchObject({ reason: 'MESSAGE_UNKNOWN' })
  cancelling.audit.fails = true
  expect(await failureOf(cancelling.client.cancelMessage({ messageId: id }, bound))).toMatchObject({
    reason: 'AUDIT_UNAVAILABLE',
  })
  expect(cancelling.registry.removed).toEqual([])
  cancelling.audit.fails = false
  expect(await cancelling.client.cancelMessage({ messageId: id }, bound)).toMatchObject({ removedCount: 1 })
  // What is another's is on record before it goes.
  expect(cancelling.recorded).toEqual([
    { principal: 'anonymous', action: 'push.v1.PublishService/CancelMessage', target: `message/${id}`, messageId: id },
  ])
})

test('a publisher sees its own without any word of the policy', async () => {
  const { registry, client, recorded } = await bench({ policy: new Map() })
  registry.add(receipt(id, { state: MessageState.ACKNOWLEDGED, time: 10, more: { principal: 'anonymous' } }))
  expect(await client.getMessage({ messageId: id }, bound)).toMatchObject({ devices: [{ deviceId: 'd' }] })
  registry.add(receipt(id, { deviceId: 'e', state: MessageState.STORED, time: 10, more: { principal: 'anonymous' } }))
  expect(await client.cancelMessage({ messageId: id }, bound)).toMatchObject({ removedCount: 1 })
  expect(recorded).toEqual([])
})
