import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test as base, describe, expect, onTestFinished } from 'vitest'
import { ConfirmLevel, MessageClass, type MessageOutcome, MessageState, Priority, StateReason } from '../gen/push/v1/message.ts'
import type { DisconnectDeviceRequest, DisconnectDeviceResponse, Edge } from '../gen/push/v1/operations.ts'
import { PublishMode, type PublishResponse } from '../gen/push/v1/publish.ts'
import { PushError } from '../service-kit/errors.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { endOf, run, start } from './testing/run-here.ts'
import { startTestEdge } from './testing/test-edge.ts'
import { type Answers, startTestService } from './testing/test-service.ts'

const test = base.extend<{
  service: (answers: Answers) => ReturnType<typeof startTestService>
  edge: Awaited<ReturnType<typeof startTestEdge>>
}>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads what a fixture needs from this pattern
  service: async ({}, use) => {
    const started: { close(): Promise<void> }[] = []
    await use(async (answers) => {
      const service = await startTestService(answers)
      started.push(service)
      return service
    })
    for (const service of started) await service.close()
  },
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads what a fixture needs from this pattern
  edge: async ({}, use) => {
    const edge = await startTestEdge()
    await use(edge)
    await edge.close()
  },
})

const answered = (state: MessageState, outcome: Partial<MessageOutcome> = {}): PublishResponse => ({
  messageId: 'id-1',
  acceptTime: { seconds: 1_767_225_600, nanos: 0 },
  expireTime: { seconds: 1_767_229_200, nanos: 0 },
  state,
  outcome: { state, reason: StateReason.UNSPECIFIED, detail: '', edgeId: '', sessionId: '', hops: undefined, ...outcome },
  devices: [],
})

const accepted: PublishResponse = { ...answered(MessageState.ACCEPTED), outcome: undefined }

test('send --wait accepted goes through the queue and ends when it is safe there', async ({ service }) => {
  const { address, published } = await service({ publish: () => accepted })
  const args = ['send', '--device', 'demo', '--data', '{"a":1}', '--wait', 'accepted', '--address', address]
  expect(await run(args)).toEqual({ code: 0, stdout: ['accepted id-1'], stderr: [] })
  expect(published).toMatchObject([
    {
      mode: PublishMode.QUEUED,
      message: {
        target: { $case: 'deviceId', value: 'demo' },
        contentType: 'application/json',
        ttl: undefined,
        priority: Priority.NORMAL,
        messageClass: MessageClass.USER,
        confirm: ConfirmLevel.ACKNOWLEDGED,
      },
    },
  ])
  expect(String(published[0]?.message?.payload)).toBe('{"a":1}')
})

test('send passes every option on', async ({ service }) => {
  const { address, published } = await service({ publish: () => answered(MessageState.WRITTEN) })
  const options =
    '--ttl 1.5s --priority high --class recovery --name reboot --collapse-key k --idempotency-key i --direct --wait written'
  const ran = await run(['send', '--device', 'demo', '--data', '-', ...options.split(' '), '--content-type', 'a/b'], {
    env: { PUSH_ADDRESS: address },
    stdin: ['from ', 'stdin'],
  })
  expect(ran.stdout).toEqual([expect.stringMatching(/^written to demo in \d+ ms \(message id-1\)$/)])
  expect(published).toMatchObject([
    {
      mode: PublishMode.DIRECT,
      message: {
        idempotencyKey: 'i',
        messageClass: MessageClass.RECOVERY,
        name: 'reboot',
        contentType: 'a/b',
        priority: Priority.HIGH,
        ttl: { seconds: 1, nanos: 500_000_000 },
        collapseKey: 'k',
        confirm: ConfirmLevel.WRITTEN,
      },
    },
  ])
  expect(String(published[0]?.message?.payload)).toBe('from stdin')
})

test('--ttl 0 is sent as 0, not left out', async ({ service }) => {
  const { address, published } = await service({ publish: () => accepted })
  await run(['send', '--device', 'demo', '--ttl', '0', '--wait', 'accepted', '--address', address])
  expect(published[0]?.message?.ttl).toEqual({ seconds: 0, nanos: 0 })
})

test('send --direct waits for the acknowledgement and tells how long it took', async ({ service }) => {
  const { address, published } = await service({ publish: () => answered(MessageState.ACKNOWLEDGED) })
  const ran = await run(['send', '--device', 'demo', '--direct', '--address', address])
  expect(ran.code).toBe(0)
  expect(ran.stdout).toEqual([expect.stringMatching(/^acknowledged by demo in \d+ ms \(message id-1\)$/)])
  expect(published[0]?.message?.confirm).toBe(ConfirmLevel.ACKNOWLEDGED)
})

test.for<[MessageState, StateReason, number]>([
  [MessageState.FAILED, StateReason.NACKED, 1],
  [MessageState.DROPPED, StateReason.OFFLINE, 4],
  [MessageState.DROPPED, StateReason.SLOW_CONSUMER, 5],
  [MessageState.EXPIRED, StateReason.UNSPECIFIED, 5],
  [MessageState.WRITTEN, StateReason.WAIT_ENDED, 6],
])('send --direct answered with state %i for reason %i ends with %i', async ([state, reason, code], { service }) => {
  const { address } = await service({ publish: () => answered(state, { reason }) })
  const ran = await run(['send', '--device', 'demo', '--direct', '--address', address])
  expect(ran).toMatchObject({ code, stdout: [expect.stringContaining('id-1')], stderr: [] })
})

test('send --json gives one object with names for states and reasons', async ({ service }) => {
  const { address } = await service({
    publish: () =>
      answered(MessageState.FAILED, {
        reason: StateReason.NACKED,
        detail: 'no disk',
        edgeId: 'edge-1',
        hops: {
          accepted: { seconds: 1_767_225_600, nanos: 5_000_000 },
          consumed: undefined,
          lookedUp: undefined,
          sentToEdge: undefined,
          written: undefined,
          answered: undefined,
        },
      }),
  })
  const ran = await run(['send', '--device', 'demo', '--direct', '--json', '--address', address])
  expect(ran.code).toBe(1)
  expect(ran.stdout.map((line) => JSON.parse(line))).toEqual([
    {
      device_id: 'demo',
      message_id: 'id-1',
      state: 'FAILED',
      reason: 'NACKED',
      detail: 'no disk',
      elapsed_ms: expect.any(Number),
      accept_time: '2026-01-01T00:00:00.000Z',
      expire_time: '2026-01-01T01:00:00.000Z',
      edge_id: 'edge-1',
      hops: { accepted: '2026-01-01T00:00:00.005Z' },
    },
  ])
})

test('a refused message names the reason and each field, and ends with 2', async ({ service }) => {
  const { address } = await service({
    publish: () => {
      throw new PushError(
        'TTL_OUT_OF_RANGE',
        'the message is not valid',
        {},
        {
          violations: [{ field: 'message.ttl', description: 'must be at most 30 days' }],
        },
      )
    },
  })
  const args = ['send', '--device', 'demo', '--ttl', '31d', '--address', address]
  expect(await run(args)).toEqual({
    code: 2,
    stdout: [],
    stderr: ['TTL_OUT_OF_RANGE: the message is not valid', '  message.ttl: must be at most 30 days'],
  })
  const [line = ''] = (await run([...args, '--json'])).stdout
  expect(JSON.parse(line)).toEqual({
    device_id: 'demo',
    error: {
      reason: 'TTL_OUT_OF_RANGE',
      message: 'the message is not valid',
      fields: [{ field: 'message.ttl', description: 'must be at most 30 days' }],
    },
  })
})

test('an account as target goes to the service, which says that it cannot do that yet', async ({ service }) => {
  const { address, published } = await service({
    publish: () => {
      throw new PushError('NOT_IMPLEMENTED', 'account targets come with a later version')
    },
  })
  const ran = await run(['send', '--account', 'family', '--address', address])
  expect(ran).toEqual({ code: 2, stdout: [], stderr: ['NOT_IMPLEMENTED: account targets come with a later version'] })
  expect(published[0]?.message?.target).toEqual({ $case: 'accountId', value: 'family' })
})

test('who may not send ends with 3', async ({ service }) => {
  const { address } = await service({
    publish: () => {
      throw new PushError('CLASS_FORBIDDEN', 'you may not send RECOVERY')
    },
  })
  const ran = await run(['send', '--device', 'demo', '--class', 'recovery', '--address', address])
  expect(ran).toEqual({ code: 3, stdout: [], stderr: ['CLASS_FORBIDDEN: you may not send RECOVERY'] })
})

test('a queue that is away ends with 8, and says when to come back', async ({ service }) => {
  const { address } = await service({
    publish: () => {
      throw new PushError('QUEUE_UNAVAILABLE', 'the queue does not answer', {}, { retryAfterMs: 1_500 })
    },
  })
  expect(await run(['send', '--device', 'demo', '--address', address])).toEqual({
    code: 8,
    stdout: [],
    stderr: [`the service at ${address} is unavailable: the queue does not answer`, '  come back in 1.5 s'],
  })
})

test('a service that is not there ends with 8 and the address', async () => {
  const server = createServer()
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  server.close()
  for (const args of [
    ['send', '--device', 'demo'],
    ['devices', 'get', 'demo'],
    ['edges', 'list'],
  ]) {
    const ran = await run([...args, '--address', address])
    expect(ran).toEqual({
      code: 8,
      stdout: [],
      stderr: [`the service at ${address} is unavailable: connect ECONNREFUSED ${address}`],
    })
  }
})

test('an address where something listens and never answers ends with 8', async () => {
  const server = createServer(() => {})
  await once(server.listen(0, '127.0.0.1'), 'listening')
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const ran = await run(['send', '--device', 'demo', '--timeout', '200ms', '--address', address])
  server.close()
  expect(ran).toEqual({
    code: 8,
    stdout: [],
    stderr: [`the service at ${address} is unavailable: nothing answers at ${address}`],
  })
})

test('no answer within --timeout ends with 6', async ({ service }) => {
  const called = Promise.withResolvers<void>()
  const { address } = await service({
    publish: () => {
      called.resolve()
      return new Promise(() => {})
    },
  })
  const clock = new SteeredClock()
  const { done } = start(['send', '--device', 'demo', '--direct', '--timeout', '20s', '--address', address], { clock })
  await called.promise
  const ran = await endOf(done, clock)
  expect(ran).toMatchObject({ code: 6, stdout: [], stderr: [expect.stringMatching(`^gave up waiting for ${address}: `)] })
})

test('Ctrl-C ends a send with 130', async ({ service }) => {
  const called = Promise.withResolvers<void>()
  const { address } = await service({
    publish: () => {
      called.resolve()
      return new Promise(() => {})
    },
  })
  const running = start(['send', '--device', 'demo', '--direct', '--address', address])
  await called.promise
  running.interrupt()
  expect(await running.done).toEqual({
    code: 130,
    stdout: [],
    stderr: ['interrupted; a message that was under way may still arrive'],
  })
})

test('--dry-run shows what would be sent, and calls nobody', async () => {
  const args = ['send', '--device', 'demo', '--data', 'hi', '--ttl', '5m', '--dry-run', '--address', '127.0.0.1:1']
  const shown = {
    mode: 'QUEUED',
    class: 'USER',
    priority: 'NORMAL',
    ttl_ms: 300_000,
    content_type: 'text/plain',
    payload_bytes: 2,
    wait: 'acked',
  }
  expect(await run(args)).toEqual({ code: 0, stdout: [`would send to demo: ${JSON.stringify(shown)}`], stderr: [] })
  const [line = ''] = (await run([...args, '--json'])).stdout
  expect(JSON.parse(line)).toEqual({ device_id: 'demo', dry_run: true, ...shown })
})

test.for<[string, string]>([
  ['send', 'name the target with --device, or with --account; one of them'],
  ['send --device a --account b', 'name the target'],
  ['send --device a --direct --wait accepted', 'wait for written, acked or result'],
  ['send --device a --wait-online --wait accepted', '--wait-online goes with --wait written, acked or result'],
  ['send --device a --wait done', 'Allowed choices are accepted, written, acked, result'],
  ['send --device a --ttl 5', 'such as 500ms, 10s, 5m, 1h or 30d; or 0'],
  ['send --device a --timeout 0', 'more than 0 and at most 24h'],
  ['send --device a --timeout 25h', 'more than 0 and at most 24h'],
  ['send --device a --priority urgent', 'Allowed choices are high, normal, low'],
  ['send --device a --class root', 'Allowed choices are user, diagnostic, recovery'],
  ['send --device a --data @/no/such/file', 'cannot read /no/such/file'],
  ['send --device a --address nowhere', 'the address "nowhere" is not host:port'],
  ['send --device a extra', 'too many arguments'],
  ['send --device a --colour red', "unknown option '--colour'"],
  ['listen', "required option '--device <id>' not specified"],
  ['listen --device a/b', 'Expected 1 to 128 characters'],
  ['listen --device a --transport sse --protocol protobuf', 'an event stream carries JSON only'],
  ['listen --device a --protocol xml', 'Allowed choices are json, protobuf'],
  ['listen --device a --count 0', 'Expected a whole number of at least 1'],
  ['listen --device a --url http://x', 'http://x is no address to connect to; expected wss:// or ws://'],
  ['devices get', "missing required argument 'id'"],
  ['devices list', "required option '--account <id>' not specified"],
  ['devices disconnect', "missing required argument 'id'"],
  ['status', "missing required argument 'message-id'"],
  ['watch', "missing required argument 'message-id'"],
  ['watch m --timeout 2d', 'more than 0 and at most 24h'],
  ['cancel', "missing required argument 'message-id'"],
  ['dead-letters list --limit 0', 'Expected a whole number from 1 to 100000'],
  ['dead-letters show', "missing required argument 'position'"],
  ['dead-letters replay', "missing required argument 'positions'"],
  ['dead-letters purge', "required option '--before <time>' not specified"],
  ['dead-letters purge --before yesterday', 'Expected how long ago, such as 12h or 7d'],
  ['dead-letters purge --before 2026-13-01T00:00:00Z', 'Expected how long ago, such as 12h or 7d'],
  ['fly', "unknown command 'fly'"],
])('"%s" is a usage error that says what is wrong', async ([args, words]) => {
  const ran = await run(args.split(' '))
  expect(ran).toMatchObject({ code: 2, stdout: [] })
  expect(ran.stderr.join('\n')).toContain(words)
})

test.for([
  [],
  ['send'],
  ['status'],
  ['watch'],
  ['cancel'],
  ['listen'],
  ['devices'],
  ['devices', 'get'],
  ['devices', 'list'],
  ['devices', 'disconnect'],
  ['edges'],
  ['edges', 'list'],
  ['edges', 'drain'],
  ['dead-letters'],
  ['dead-letters', 'list'],
  ['dead-letters', 'show'],
  ['dead-letters', 'replay'],
  ['dead-letters', 'purge'],
])('help for %j goes to stdout, ends with 0 and has an example', async (command) => {
  const ran = await run([...command, '--help'])
  expect(ran).toMatchObject({ code: 0, stderr: [] })
  expect(ran.stdout.join('\n')).toMatch(/Examples?:\n {2}push-cli /)
})

test('no command at all is a usage error with the help', async () => {
  const ran = await run([])
  expect(ran).toMatchObject({ code: 2, stdout: [] })
  expect(ran.stderr[0]).toMatch(/^Usage: push-cli /)
})

test('devices get tells where a device is', async ({ service }) => {
  const { address } = await service({
    getDevice: ({ deviceId }) => ({
      device: {
        deviceId,
        connected: true,
        edgeId: 'edge-1',
        sessionId: 's-1',
        accountId: '',
        connectedTime: { seconds: 1_767_225_600, nanos: 0 },
        protocol: 'push.v1.json',
      },
    }),
  })
  expect(await run(['devices', 'get', 'tv', '--address', address])).toEqual({
    code: 0,
    stdout: [
      'FIELD           VALUE',
      'device_id       tv',
      'connected       true',
      'edge_id         edge-1',
      'session_id      s-1',
      'connected_time  2026-01-01T00:00:00.000Z',
      'protocol        push.v1.json',
    ],
    stderr: [],
  })
  const [line = ''] = (await run(['devices', 'get', 'tv', '--json', '--address', address])).stdout
  expect(JSON.parse(line)).toMatchObject({ device_id: 'tv', connected: true, edge_id: 'edge-1' })
})

test('devices list goes through all pages of an account', async ({ service }) => {
  const tv = (deviceId: string, connected: boolean, accountId: string) => ({
    deviceId,
    connected,
    edgeId: connected ? 'edge-1' : '',
    sessionId: connected ? 's-1' : '',
    accountId,
    connectedTime: connected ? { seconds: 1_767_225_600, nanos: 0 } : undefined,
    protocol: '',
  })
  const { address } = await service({
    listAccountDevices: ({ accountId, pageToken }) =>
      pageToken === ''
        ? { devices: [tv('a', true, accountId)], nextPageToken: 'more' }
        : { devices: [tv('b', true, 'other'), tv('c', false, '')], nextPageToken: '' },
  })
  expect(await run(['devices', 'list', '--account', 'family', '--address', address])).toEqual({
    code: 0,
    stdout: [
      'DEVICE  CONNECTED  EDGE    SINCE                     ACCOUNT',
      'a       yes        edge-1  2026-01-01T00:00:00.000Z  family',
      'b       yes        edge-1  2026-01-01T00:00:00.000Z  other',
      'c       no         -       -                         -',
    ],
    stderr: [],
  })
  const ran = await run(['devices', 'list', '--account', 'family', '--json', '--address', address])
  expect(ran.stdout.map((line) => JSON.parse(line))).toMatchObject([
    { device_id: 'a', connected: true, account_id: 'family' },
    { device_id: 'b' },
    { device_id: 'c', connected: false },
  ])
})

test('devices list of an account that nobody has logged in to says so', async ({ service }) => {
  const { address } = await service({ listAccountDevices: () => ({ devices: [], nextPageToken: '' }) })
  expect(await run(['devices', 'list', '--account', 'family', '--address', address])).toEqual({
    code: 0,
    stdout: [],
    stderr: ['no device has logged in to this account'],
  })
})

test('devices get of a device that is not connected ends with 4', async ({ service }) => {
  const { address } = await service({
    getDevice: ({ deviceId }) => {
      throw new PushError('DEVICE_UNKNOWN', `${deviceId} has no session`)
    },
  })
  const ran = await run(['devices', 'get', 'tv', '--json', '--address', address])
  expect(ran).toMatchObject({ code: 4, stderr: ['DEVICE_UNKNOWN: tv has no session'] })
  expect(JSON.parse(ran.stdout[0] ?? '')).toEqual({
    device_id: 'tv',
    error: { reason: 'DEVICE_UNKNOWN', message: 'tv has no session' },
  })
})

describe('devices disconnect', () => {
  const disconnect = async (
    serve: (answers: Answers) => ReturnType<typeof startTestService>,
    answer: DisconnectDeviceResponse,
    ...more: string[]
  ) => {
    const asked: DisconnectDeviceRequest[] = []
    const { address } = await serve({
      disconnectDevice(request) {
        asked.push(request)
        return answer
      },
    })
    return { asked, ...(await run(['devices', 'disconnect', 'tv', '--address', address, ...more])) }
  }

  test('closes the sessions of a device, with a reason', async ({ service }) => {
    const ran = await disconnect(service, { closedCount: 2, unansweredCount: 0 }, '--reason', 'lost')
    expect(ran).toEqual({
      asked: [{ deviceId: 'tv', reason: 'lost' }],
      code: 0,
      stdout: ['disconnected tv: 2 sessions closed'],
      stderr: [],
    })
  })

  test('ends with 4 when the device was not connected', async ({ service }) => {
    const ran = await disconnect(service, { closedCount: 0, unansweredCount: 0 })
    expect(ran).toMatchObject({ code: 4, stdout: ['tv was not connected'] })
  })

  test('ends with 8 while an edge has not answered: the device may still be connected', async ({ service }) => {
    const ran = await disconnect(service, { closedCount: 1, unansweredCount: 1 }, '--json')
    expect(ran).toMatchObject({ code: 8, stderr: [expect.stringContaining('did not answer')] })
    expect(JSON.parse(ran.stdout[0] ?? '')).toEqual({ device_id: 'tv', closed_count: 1, unanswered_count: 1 })
  })
})

const edgeCalled = (edgeId: string): Edge => ({
  edgeId,
  name: 'edge',
  address: '127.0.0.1:7402',
  zone: '',
  connectionCount: 3,
  connectionLimit: 1_000,
  draining: false,
  state: 1,
  leaseExpireTime: undefined,
})

test('edges list reads every page', async ({ service }) => {
  const { address } = await service({
    listEdges: ({ pageToken }) =>
      pageToken === ''
        ? { edges: [edgeCalled('edge-a')], nextPageToken: 'more' }
        : { edges: [edgeCalled(`edge-b-${pageToken}`)], nextPageToken: '' },
  })
  expect(await run(['edges', 'list', '--address', address])).toEqual({
    code: 0,
    stdout: [
      'EDGE         STATE  CONNECTIONS  LIMIT  DRAINING  ZONE  ADDRESS',
      'edge-a       LIVE   3            1000   no        -     127.0.0.1:7402',
      'edge-b-more  LIVE   3            1000   no        -     127.0.0.1:7402',
    ],
    stderr: [],
  })
  const json = (await run(['edges', 'list', '--json', '--address', address])).stdout
  expect(json.map((line) => JSON.parse(line).edge_id)).toEqual(['edge-a', 'edge-b-more'])
})

test('a list of edges that does not end is given up', async ({ service }) => {
  const { address } = await service({ listEdges: () => ({ edges: [], nextPageToken: 'again' }) })
  const ran = await run(['edges', 'list', '--address', address])
  expect(ran).toMatchObject({ code: 8, stderr: [expect.stringContaining('does not end after 1000 pages')] })
})

test('listen prints each message on a line, acknowledges it and ends after --count', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--account', 'family', '--url', edge.url, '--count', '3'])
  await running.said('waiting for messages')
  edge.send('m1', { name: 'greet', data: { text: 'hi' } })
  edge.send('m2', { data_base64: Buffer.from('two\nlines\u001b').toString('base64'), content_type: 'text/plain' })
  edge.send('m3', { data_base64: 'AAEC', content_type: 'application/octet-stream' })
  edge.send('m4', { data: 'one too many' })
  const ran = await running.done
  expect(ran).toMatchObject({
    code: 0,
    stdout: ['USER greet {"text":"hi"}', 'USER two\\nlines\\u001b', 'USER <3 bytes of application/octet-stream>'],
    stderr: ['connected as my-tv (session s-1); waiting for messages, Ctrl-C ends'],
  })
  expect(Buffer.from(edge.tokens[0] ?? '', 'base64url').toString()).toBe('dev:my-tv/family')
  await expect.poll(() => edge.received.flatMap((frame) => frame.ids ?? frame.type)).toEqual(['m1', 'm2', 'm3'])
})

test('listen --protocol protobuf speaks that form', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--url', edge.url, '--protocol', 'protobuf'])
  await expect.poll(() => edge.forms).toEqual(['push.v1.protobuf'])
  running.interrupt()
  expect((await running.done).code).toBe(130)
})

test('listen --transport sse reads an event stream, and acknowledges beside it', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--transport', 'sse', '--url', edge.streamUrl, '--count', '1'])
  expect(await running.done).toMatchObject({ code: 0, stdout: ['USER hello'] })
  expect(edge.received).toEqual([{ type: 'ack', ids: ['m1'] }])
  expect(new Set(edge.tokens)).toEqual(new Set(['dev:my-tv']))
})

test('listen --json gives one object a message', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--json', '--count', '2'], { env: { PUSH_DEVICE_URL: edge.url } })
  await running.said('waiting for messages')
  edge.send('m1', { name: 'greet', data: [1] })
  edge.send('m2', { data_base64: 'AAEC', content_type: 'application/octet-stream' })
  const { stdout } = await running.done
  expect(stdout.map((line) => JSON.parse(line))).toEqual([
    {
      id: 'm1',
      class: 'USER',
      name: 'greet',
      content_type: 'application/json',
      data: [1],
      priority: 'NORMAL',
      accept_time: 1,
      expire_time: 9_000_000_000,
      confirm: 'ACKNOWLEDGED',
      redelivered: false,
      target: 'device/my-tv',
    },
    expect.objectContaining({ id: 'm2', data_base64: 'AAEC' }),
  ])
})

test('listen ends with 3 when the server refuses the credential', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--token', 'a.b.c', '--url', edge.url])
  await running.said('waiting for messages')
  edge.sockets[0]?.close(4500, 'bad signature')
  expect(await running.done).toMatchObject({
    code: 3,
    stderr: [expect.any(String), 'the server refuses this device (4500 bad signature)'],
  })
  expect(edge.tokens).toEqual(['a.b.c'])
})

test('listen takes its credential from a file, which says nothing to whoever lists processes', async ({ edge }) => {
  const folder = mkdtempSync(join(tmpdir(), 'push-cli-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'token')
  writeFileSync(file, 'd.e.f\n')
  const listen = ['listen', '--device', 'my-tv', '--url', edge.url]
  const running = start([...listen, '--token-file', file], { env: { PUSH_DEVICE_TOKEN: 'not.this.one' } })
  await running.said('waiting for messages')
  running.interrupt()
  await running.done
  expect(edge.tokens).toEqual(['d.e.f'])
  expect(await start([...listen, '--token-file', join(folder, 'nothing')]).done).toMatchObject({
    code: 2,
    stderr: [expect.stringContaining('cannot be read (ENOENT)')],
  })
  expect(await start([...listen, '--token-file', file, '--token', 'a.b.c']).done).toMatchObject({ code: 2 })
})

test('listen says that nobody is there, goes on trying, and ends with 130 at Ctrl-C', async ({ edge }) => {
  const running = start(['listen', '--device', 'my-tv', '--url', edge.url])
  await running.said('waiting for messages')
  edge.sockets[0]?.close(1012)
  await running.said(`not connected to ${edge.url} (1012); next attempt in `)
  running.interrupt()
  expect((await running.done).code).toBe(130)
})
