import { test as base, expect } from 'vitest'
import { ConfirmLevel, MessageState, StateReason } from '../gen/push/v1/message.ts'
import { type DeviceOutcome, PublishMode, type PublishResponse } from '../gen/push/v1/publish.ts'
import { PushError } from '../service-kit/errors.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { deviceAt, in2026 } from './testing/device-outcome.ts'
import { endOf, run, start } from './testing/run-here.ts'
import { type Answers, startTestService } from './testing/test-service.ts'

const test = base.extend<{ service: (answers: Answers) => ReturnType<typeof startTestService> }>({
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
})

const accepted: PublishResponse = {
  messageId: 'id-1',
  acceptTime: in2026(0),
  expireTime: in2026(3_600_000),
  state: MessageState.ACCEPTED,
  outcome: undefined,
  devices: [],
}
const direct = (state: MessageState, reason: StateReason = StateReason.UNSPECIFIED): PublishResponse => ({
  ...accepted,
  state,
  outcome: { state, reason, detail: '', edgeId: '', sessionId: '', hops: undefined },
})

async function* steps(...devices: DeviceOutcome[]) {
  yield* devices
}

/** Gives these and then waits for ever. */
async function* stepsThenSilence(signal: AbortSignal, ...devices: DeviceOutcome[]) {
  yield* devices
  await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
}

const acked = deviceAt('ACKNOWLEDGED', { final: true })
const stored = deviceAt('STORED', { reason: 'OFFLINE' })
const completed = deviceAt('COMPLETED', { final: true, result: '{"free":17}' })
const unavailable = (): never => {
  throw new PushError('DRAINING', 'this process is shutting down')
}

test.describe('send through the queue', () => {
  test('waits until the device has acknowledged', async ({ service }) => {
    const { address, published } = await service({ publish: () => accepted, watchMessage: () => steps(acked) })
    const ran = await run(['send', '--device', 'demo', '--address', address])
    expect(ran).toEqual({
      code: 0,
      stdout: [expect.stringMatching(/^acknowledged by demo in \d+ ms \(message id-1\)$/)],
      stderr: [],
    })
    expect(published).toMatchObject([{ mode: PublishMode.QUEUED, message: { confirm: ConfirmLevel.ACKNOWLEDGED } }])
  })

  test.for<[string, DeviceOutcome, number, string]>([
    ['refused', deviceAt('FAILED', { final: true, reason: 'NACKED', detail: 'no' }), 1, 'refused by demo: no (message id-1)'],
    [
      'dropped',
      deviceAt('DROPPED', { final: true, reason: 'UNKNOWN' }),
      5,
      'may or may not have reached the device: dropped (message id-1)',
    ],
    ['expired', deviceAt('EXPIRED', { final: true }), 5, 'expired (message id-1)'],
    ['dropped as now or never', deviceAt('DROPPED', { final: true, reason: 'OFFLINE' }), 4, 'offline: dropped (message id-1)'],
  ])('ends with what became of it: %s', async ([, device, code, words], { service }) => {
    const { address } = await service({ publish: () => accepted, watchMessage: () => steps(device) })
    expect(await run(['send', '--device', 'demo', '--address', address])).toEqual({ code, stdout: [words], stderr: [] })
  })

  test('a device that is offline ends the wait at once with 4', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      watchMessage: (_request, _n, signal) => stepsThenSilence(signal, stored),
    })
    expect(await run(['send', '--device', 'demo', '--timeout', '20s', '--address', address])).toEqual({
      code: 4,
      stdout: ['offline: stored (message id-1)'],
      stderr: [],
    })
  })

  test('--wait-online goes on until the device has come', async ({ service }) => {
    const { address } = await service({ publish: () => accepted, watchMessage: () => steps(stored, acked) })
    expect(await run(['send', '--device', 'demo', '--wait-online', '--address', address])).toEqual({
      code: 0,
      stdout: [expect.stringContaining('acknowledged by demo')],
      stderr: ['stored until demo comes; waiting'],
    })
  })

  test('gives up at --timeout with 6, the id, and what is known', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      watchMessage: (_request, _n, signal) => stepsThenSilence(signal, stored),
    })
    const gaveUp = async (...more: string[]) => {
      const clock = new SteeredClock()
      const args = ['send', '--device', 'demo', '--wait-online', '--timeout', '20s', '--address', address, ...more]
      const { said, done } = start(args, { clock })
      await said('stored until demo comes; waiting')
      return endOf(done, clock)
    }
    expect(await gaveUp()).toEqual({
      code: 6,
      stdout: ['gave up waiting: stored until demo comes (message id-1)'],
      stderr: ['stored until demo comes; waiting', 'the message was accepted; push-cli status id-1 tells what becomes of it'],
    })
    const [line = ''] = (await gaveUp('--json')).stdout
    expect(JSON.parse(line)).toMatchObject({
      device_id: 'demo',
      message_id: 'id-1',
      state: 'STORED',
      reason: 'OFFLINE',
      gave_up: true,
    })
  })

  test('a message that stays queued is waited for as long as --timeout says', async ({ service }) => {
    let asked = 0
    const { address } = await service({
      publish: () => accepted,
      // biome-ignore lint/correctness/useYield: it only fails
      watchMessage: async function* () {
        asked++
        throw new PushError('MESSAGE_UNKNOWN', 'nothing is recorded')
      },
    })
    const clock = new SteeredClock()
    const { done } = start(['send', '--device', 'demo', '--timeout', '60s', '--address', address], { clock })
    // Only then may time pass: looking whether there is a service takes a few seconds at most.
    await expect.poll(() => asked).toBe(1)
    await expect
      .poll(async () => {
        await clock.advance(100)
        return asked
      })
      .toBeGreaterThan(2)
    const ran = await endOf(done, clock)
    expect(ran).toMatchObject({ code: 6, stdout: [expect.stringMatching(/^gave up waiting: .*\(message id-1\)$/)] })
  })

  test('a router that shuts down is no end: the watch begins again', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      watchMessage: (_request, n) => (n === 1 ? unavailable() : steps(acked)),
    })
    expect(await run(['send', '--device', 'demo', '--address', address])).toMatchObject({ code: 0, stderr: [] })
  })

  test('a service that is gone after it has accepted the message ends with 8 and tells the id', async ({ service }) => {
    const watched = Promise.withResolvers<void>()
    const watchMessage = () => {
      watched.resolve()
      return unavailable()
    }
    const { address } = await service({ publish: () => accepted, watchMessage })
    const clock = new SteeredClock()
    const { done } = start(['send', '--device', 'demo', '--timeout', '10m', '--address', address], { clock })
    await watched.promise
    const ran = await endOf(done, clock)
    expect(ran.code).toBe(8)
    expect(ran.stdout).toEqual(['gave up waiting: this process is shutting down (message id-1)'])
    expect(ran.stderr).toEqual(['the message was accepted; push-cli status id-1 tells what becomes of it'])
  })

  test('a service that cannot watch leaves it open what became of the message', async ({ service }) => {
    const { address } = await service({ publish: () => accepted })
    const ran = await run(['send', '--device', 'demo', '--json', '--address', address])
    expect(ran.code).toBe(6)
    expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({
      message_id: 'id-1',
      state: 'ACCEPTED',
      error: { message: expect.any(String) },
    })
  })

  test('Ctrl-C while waiting ends with 130 and tells the id', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      watchMessage: (_request, _n, signal) => stepsThenSilence(signal, stored),
    })
    const running = start(['send', '--device', 'demo', '--wait-online', '--address', address])
    await running.said('stored until demo comes')
    running.interrupt()
    expect(await running.done).toMatchObject({
      code: 130,
      stderr: [expect.any(String), 'interrupted; the message was accepted, push-cli status id-1 tells what becomes of it'],
    })
  })

  test('--wait written wants nothing more than that, and the message says so', async ({ service }) => {
    const { address, published } = await service({
      publish: () => accepted,
      watchMessage: () => steps(deviceAt('WRITTEN', { final: true })),
    })
    expect(await run(['send', '--device', 'demo', '--wait', 'written', '--address', address])).toMatchObject({ code: 0 })
    expect(published[0]?.message?.confirm).toBe(ConfirmLevel.WRITTEN)
  })

  test('--json gives what the device answered, with its times', async ({ service }) => {
    const device = deviceAt('ACKNOWLEDGED', { final: true, hops: { accepted: 0, answered: 5 } })
    const { address } = await service({ publish: () => accepted, watchMessage: () => steps(device) })
    const [line = ''] = (await run(['send', '--device', 'demo', '--json', '--address', address])).stdout
    expect(JSON.parse(line)).toEqual({
      device_id: 'demo',
      message_id: 'id-1',
      state: 'ACKNOWLEDGED',
      elapsed_ms: expect.any(Number),
      accept_time: '2026-01-01T00:00:00.000Z',
      expire_time: '2026-01-01T01:00:00.000Z',
      edge_id: 'edge-1',
      session_id: 's-1',
      hops: { accepted: '2026-01-01T00:00:00.000Z', answered: '2026-01-01T00:00:00.005Z' },
    })
  })

  test('to an account: one line a device, and 7 when they did not all come to the same end', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      deviceCount: 2,
      watchMessage: (_request, _n, signal) =>
        stepsThenSilence(signal, deviceAt('ACKNOWLEDGED', { deviceId: 'a', final: true }), { ...stored, deviceId: 'b' }),
    })
    const args = ['send', '--account', 'family', '--timeout', '20s', '--address', address]
    expect(await run(args)).toEqual({
      code: 7,
      stdout: [expect.stringMatching(/^a: acknowledged by a in \d+ ms \(message id-1\)$/), 'b: offline: stored (message id-1)'],
      stderr: [],
    })
    const [line = ''] = (await run([...args, '--json'])).stdout
    expect(JSON.parse(line)).toMatchObject({
      account_id: 'family',
      devices: [
        { device_id: 'a', state: 'ACKNOWLEDGED', final: true },
        { device_id: 'b', state: 'STORED', final: false },
      ],
    })
  })
})

test.describe('send --direct to an account', () => {
  const answer = (...devices: DeviceOutcome[]): PublishResponse => ({ ...accepted, state: MessageState.DROPPED, devices })

  test('one line a device, as the call returned them', async ({ service }) => {
    const { address } = await service({
      publish: () => answer(deviceAt('ACKNOWLEDGED', { deviceId: 'a', final: true }), { ...stored, deviceId: 'b' }),
    })
    expect(await run(['send', '--account', 'family', '--direct', '--address', address])).toEqual({
      code: 7,
      stdout: [expect.stringMatching(/^a: acknowledged by a in \d+ ms \(message id-1\)$/), 'b: offline: stored (message id-1)'],
      stderr: [],
    })
  })

  test('--wait result waits for those that have only acknowledged', async ({ service }) => {
    const { address } = await service({
      publish: () => answer(deviceAt('ACKNOWLEDGED', { deviceId: 'a' }), deviceAt('DROPPED', { deviceId: 'b', final: true })),
      deviceCount: 2,
      watchMessage: () => steps({ ...completed, deviceId: 'a' }),
    })
    const ran = await run(['send', '--account', 'family', '--direct', '--wait', 'result', '--json', '--address', address])
    expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({
      devices: [
        { device_id: 'a', state: 'COMPLETED', result: { free: 17 } },
        { device_id: 'b', state: 'DROPPED' },
      ],
    })
  })

  test('an account without devices: 5, and why', async ({ service }) => {
    const { address } = await service({ publish: () => direct(MessageState.DROPPED, StateReason.NO_DEVICES) })
    expect(await run(['send', '--account', 'family', '--direct', '--address', address])).toEqual({
      code: 5,
      stdout: ['no device has logged in to the account: dropped (message id-1)'],
      stderr: [],
    })
  })
})

test.describe('send through the queue to an account', () => {
  test('a device of which nothing was ever recorded does not make the rest a success', async ({ service }) => {
    const { address } = await service({
      publish: () => accepted,
      deviceCount: 2,
      watchMessage: () => steps(deviceAt('ACKNOWLEDGED', { deviceId: 'a', final: true })),
    })
    const ran = await run(['send', '--account', 'family', '--address', address])
    expect(ran).toMatchObject({
      code: 7,
      stdout: [expect.stringMatching(/^a: acknowledged/), '1 of 2 devices: nothing recorded'],
    })
  })

  test('without devices: the one line has no name before it', async ({ service }) => {
    const none = deviceAt('DROPPED', { deviceId: '', final: true, reason: 'NO_DEVICES' })
    const { address } = await service({ publish: () => accepted, watchMessage: () => steps(none) })
    const args = ['send', '--account', 'family', '--address', address]
    expect(await run(args)).toMatchObject({ code: 5, stdout: ['no device has logged in to the account: dropped (message id-1)'] })
    const json = JSON.parse((await run([...args, '--json'])).stdout[0] ?? '')
    expect(json).toMatchObject({ account_id: 'family', state: 'DROPPED', reason: 'NO_DEVICES' })
  })
})

test.describe('send --wait result', () => {
  test('prints the data of the result and nothing else to stdout', async ({ service }) => {
    const { address, published } = await service({
      publish: () => accepted,
      watchMessage: () => steps(deviceAt('ACKNOWLEDGED'), completed),
    })
    expect(await run(['send', '--device', 'demo', '--wait', 'result', '--address', address])).toEqual({
      code: 0,
      stdout: ['{"free":17}'],
      stderr: [
        'acknowledged by demo, no result yet; waiting',
        expect.stringMatching(/^completed by demo in \d+ ms \(message id-1\)$/),
      ],
    })
    expect(published[0]?.message?.confirm).toBe(ConfirmLevel.RESULT)
  })

  test('of a direct message waits on after the acknowledgement that the call returns', async ({ service }) => {
    const { address } = await service({ publish: () => direct(MessageState.ACKNOWLEDGED), watchMessage: () => steps(completed) })
    const ran = await run(['send', '--device', 'demo', '--direct', '--wait', 'result', '--json', '--address', address])
    expect(ran.code).toBe(0)
    expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({ state: 'COMPLETED', result: { free: 17 } })
  })

  test('a result that says failed ends with 1, its data printed', async ({ service }) => {
    const failed = deviceAt('FAILED', { final: true, reason: 'RESULT_FAILED', detail: 'disk full', result: '{"code":28}' })
    const { address } = await service({ publish: () => accepted, watchMessage: () => steps(failed) })
    expect(await run(['send', '--device', 'demo', '--wait', 'result', '--address', address])).toEqual({
      code: 1,
      stdout: ['{"code":28}'],
      stderr: ['failed on demo (RESULT_FAILED): disk full (message id-1)'],
    })
  })
})

test.describe('send --direct', () => {
  test('answered STORED ends with 4 at once, without any watch', async ({ service }) => {
    const { address } = await service({ publish: () => direct(MessageState.STORED, StateReason.OFFLINE) })
    expect(await run(['send', '--device', 'demo', '--direct', '--address', address])).toEqual({
      code: 4,
      stdout: ['offline: stored (message id-1)'],
      stderr: [],
    })
  })

  test('with --wait-online what was stored is waited for', async ({ service }) => {
    const { address } = await service({
      publish: () => direct(MessageState.STORED, StateReason.OFFLINE),
      watchMessage: () => steps(stored, acked),
    })
    expect(await run(['send', '--device', 'demo', '--direct', '--wait-online', '--address', address])).toMatchObject({ code: 0 })
  })
})

test.describe('status', () => {
  const device = deviceAt('ACKNOWLEDGED', {
    final: true,
    at: 8,
    hops: { accepted: 0, consumed: 4, answered: 7 },
    recorded: [['ACKNOWLEDGED', 8]],
  })

  test('tells the story line by line', async ({ service }) => {
    const { address } = await service({
      getMessage: ({ messageId }) => ({ messageId, devices: [device], expireTime: in2026(3_600_000), deviceCount: 0 }),
    })
    expect(await run(['status', 'id-1', '--address', address])).toEqual({
      code: 0,
      stdout: [
        'demo: acknowledged by demo (message id-1)',
        '  TIME                      MS    STEP',
        '  2026-01-01T00:00:00.000Z        accepted',
        '  2026-01-01T00:00:00.004Z  +4.0  consumed from the queue',
        '  2026-01-01T00:00:00.007Z  +3.0  answered by the device',
        '  2026-01-01T00:00:00.008Z  +1.0  acknowledged',
      ],
      stderr: [],
    })
  })

  test('says of what is not final when it expires, and of a result what it is', async ({ service }) => {
    const { address } = await service({
      getMessage: ({ messageId }) => ({
        messageId,
        devices: [{ ...stored, deviceId: 'b' }, completed],
        expireTime: in2026(3_600_000),
        deviceCount: 0,
      }),
    })
    const ran = await run(['status', 'id-1', '--address', address])
    expect(ran.code).toBe(7)
    expect(ran.stdout[0]).toBe('b: offline: stored (message id-1); not final, expires 2026-01-01T01:00:00.000Z')
    expect(ran.stdout.at(-1)).toBe('result: {"free":17}')
  })

  test('devices of an account of which nothing is recorded yet are counted', async ({ service }) => {
    const { address } = await service({
      getMessage: ({ messageId }) => ({ messageId, devices: [completed], expireTime: in2026(3_600_000), deviceCount: 3 }),
    })
    const ran = await run(['status', 'id-1', '--address', address])
    expect(ran.code).toBe(7)
    expect(ran.stdout.at(-1)).toBe('2 of 3 devices: nothing recorded yet; expires 2026-01-01T01:00:00.000Z')
    const [line = ''] = (await run(['status', 'id-1', '--json', '--address', address])).stdout
    expect(JSON.parse(line)).toMatchObject({ device_count: 3, devices: [{ device_id: 'demo' }] })
  })

  test('--json gives everything by name', async ({ service }) => {
    const { address } = await service({
      getMessage: ({ messageId }) => ({ messageId, devices: [device, completed], expireTime: in2026(3_600_000), deviceCount: 0 }),
    })
    const [line = ''] = (await run(['status', 'id-1', '--json', '--address', address])).stdout
    expect(JSON.parse(line)).toMatchObject({
      message_id: 'id-1',
      expire_time: '2026-01-01T01:00:00.000Z',
      devices: [
        {
          device_id: 'demo',
          state: 'ACKNOWLEDGED',
          final: true,
          time: '2026-01-01T00:00:00.008Z',
          hops: { consumed: '2026-01-01T00:00:00.004Z' },
          recorded: [{ state: 'ACKNOWLEDGED', time: '2026-01-01T00:00:00.008Z' }],
        },
        { state: 'COMPLETED', result: { free: 17 } },
      ],
    })
  })

  test('of a message of which nothing is recorded says so', async ({ service }) => {
    const { address } = await service({
      getMessage: () => {
        throw new PushError('MESSAGE_UNKNOWN', 'nothing is recorded of message id-1: it may still be queued')
      },
    })
    const ran = await run(['status', 'id-1', '--json', '--address', address])
    expect(ran).toMatchObject({
      code: 2,
      stderr: ['MESSAGE_UNKNOWN: nothing is recorded of message id-1: it may still be queued'],
    })
    expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({ message_id: 'id-1', error: { reason: 'MESSAGE_UNKNOWN' } })
  })
})

test.describe('watch', () => {
  test('prints each change and ends with the code of the end', async ({ service }) => {
    const failed = deviceAt('FAILED', { final: true, reason: 'NACKED', detail: 'no', at: 5 })
    const { address } = await service({ watchMessage: () => steps(stored, stored, failed) })
    expect(await run(['watch', 'id-1', '--address', address])).toEqual({
      code: 1,
      stdout: ['2026-01-01T00:00:00.000Z demo STORED (OFFLINE)', '2026-01-01T00:00:00.005Z demo FAILED (NACKED): no'],
      stderr: [],
    })
  })

  test('goes on over a router that shuts down, without telling anything twice', async ({ service }) => {
    const { address } = await service({
      watchMessage: async function* (_request, n) {
        yield stored
        if (n === 1) unavailable()
        yield acked
      },
    })
    const ran = await run(['watch', 'id-1', '--json', '--address', address])
    expect(ran).toMatchObject({ code: 0, stderr: [] })
    expect(ran.stdout.map((line) => JSON.parse(line).state)).toEqual(['STORED', 'ACKNOWLEDGED'])
  })

  test('ends with 6 at --timeout, and with 2 where nothing is recorded', async ({ service }) => {
    const silent = await service({ watchMessage: (_request, _n, signal) => stepsThenSilence(signal, stored) })
    const clock = new SteeredClock()
    const { said, done } = start(['watch', 'id-1', '--timeout', '20s', '--address', silent.address], { clock })
    await said('demo STORED')
    expect(await endOf(done, clock)).toMatchObject({
      code: 6,
      stderr: ['gave up waiting; the message has not come to its end'],
    })
    const unknown = await service({
      watchMessage: () => {
        throw new PushError('MESSAGE_UNKNOWN', 'nothing is recorded')
      },
    })
    expect(await run(['watch', 'id-1', '--address', unknown.address])).toMatchObject({ code: 2 })
  })
})

test.describe('cancel', () => {
  const cancelled = deviceAt('CANCELLED', { final: true })
  test.for<[string, number, DeviceOutcome[], number, string[]]>([
    ['taken back', 1, [cancelled], 0, ['taken back from 1 of 1', '  demo: cancelled (message id-1)']],
    ['taken back before', 0, [cancelled], 0, ['nothing to take back', '  demo: cancelled (message id-1)']],
    ['delivered', 0, [acked], 1, ['nothing to take back', '  demo: acknowledged by demo (message id-1)']],
    ['in the queue', 0, [], 1, ['nothing is recorded of message id-1: while it is in the queue it cannot be recalled']],
  ])('of a message that was %s', async ([, removedCount, devices, code, stdout], { service }) => {
    const { address } = await service({ cancelMessage: () => ({ removedCount, devices }) })
    expect(await run(['cancel', 'id-1', '--address', address])).toEqual({ code, stdout, stderr: [] })
    const [line = ''] = (await run(['cancel', 'id-1', '--json', '--address', address])).stdout
    expect(JSON.parse(line)).toMatchObject({
      message_id: 'id-1',
      removed_count: removedCount,
      devices: { length: devices.length },
    })
  })
})
