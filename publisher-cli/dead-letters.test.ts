import { expect, onTestFinished, test } from 'vitest'
import { Message, StateReason } from '../gen/push/v1/message.ts'
import {
  type DeadLetterReplay,
  DeadLetterReplayState,
  type DeadLetterSummary,
  type PurgeDeadLettersRequest,
  type ReplayDeadLettersRequest,
} from '../gen/push/v1/operations.ts'
import { PushError } from '../service-kit/errors.ts'
import { run } from './testing/run-here.ts'
import { type Answers, startTestService } from './testing/test-service.ts'

async function service(answers: Answers) {
  const started = await startTestService(answers)
  onTestFinished(() => started.close())
  return (...args: string[]) => run(['dead-letters', ...args, '--address', started.address])
}

const letterAt = (position: string, more: Partial<DeadLetterSummary> = {}): DeadLetterSummary => ({
  position,
  origin: 'push.high:3:17',
  error: 'too large for the connection',
  time: { seconds: 1_767_225_600, nanos: 0 },
  messageId: 'm-1',
  reason: StateReason.TOO_LARGE,
  key: 'tv',
  ...more,
})

test('list prints a line each, and says how to go on where there are more than asked for', async () => {
  const asked: unknown[] = []
  const deadLetters = await service({
    listDeadLetters: (request) => {
      asked.push(request)
      return {
        deadLetters: [letterAt(`0:${asked.length}`, asked.length === 2 ? { messageId: '', error: 'bad\u001b' } : {})],
        nextPageToken: `t${asked.length}`,
      }
    },
  })
  expect(await deadLetters('list', '--limit', '2', '--page', 't0')).toEqual({
    code: 0,
    stdout: [
      'POSITION  TIME                      REASON     FOR  MESSAGE  ORIGIN          ERROR',
      '0:1       2026-01-01T00:00:00.000Z  TOO_LARGE  tv   m-1      push.high:3:17  too large for the connection',
      '0:2       2026-01-01T00:00:00.000Z  TOO_LARGE  tv   -        push.high:3:17  bad\\u001b',
    ],
    stderr: ['there are more: --page t2'],
  })
  expect(asked).toEqual([
    { pageSize: 2, pageToken: 't0' },
    { pageSize: 1, pageToken: 't1' },
  ])
})

test('list --json gives one object each; no dead letters are no failure', async () => {
  const some = await service({ listDeadLetters: () => ({ deadLetters: [letterAt('0:1')], nextPageToken: '' }) })
  const { stdout, stderr } = await some('list', '--json')
  expect(stdout.map((line) => JSON.parse(line))).toEqual([
    {
      position: '0:1',
      time: '2026-01-01T00:00:00.000Z',
      reason: 'TOO_LARGE',
      error: 'too large for the connection',
      key: 'tv',
      message_id: 'm-1',
      origin: 'push.high:3:17',
    },
  ])
  expect(stderr).toEqual([])
  const none = await service({ listDeadLetters: () => ({ deadLetters: [], nextPageToken: '' }) })
  expect(await none('list', '--json')).toEqual({ code: 0, stdout: [], stderr: ['there are no dead letters'] })
})

test('a list that does not end is given up', async () => {
  const deadLetters = await service({ listDeadLetters: () => ({ deadLetters: [], nextPageToken: 'again' }) })
  const ran = await deadLetters('list', '--limit', '5')
  expect(ran).toMatchObject({ code: 8, stderr: [expect.stringContaining('does not end after 5 pages')] })
})

test('show tells of the message, and gives the record itself as JSON', async () => {
  const deadLetters = await service({
    getDeadLetter: ({ position }) => ({
      summary: letterAt(position),
      value: Buffer.from([255, 0]),
      message: Message.fromPartial({ target: { $case: 'deviceId', value: 'tv' }, name: 'reboot', payload: Buffer.from('{}') }),
      acceptTime: { seconds: 1_767_225_600, nanos: 0 },
      expireTime: { seconds: 1_767_229_200, nanos: 0 },
      principal: 'someone',
      attempt: 0,
    }),
  })
  const plain = await deadLetters('show', '3:17')
  expect(plain).toMatchObject({ code: 0, stderr: [] })
  for (const line of [
    /^position +3:17$/m,
    /^device_id +tv$/m,
    /^name +reboot$/m,
    /^expire_time +2026-01-01T01:00:00.000Z$/m,
    /^attempt +0$/m,
  ])
    expect(plain.stdout.join('\n')).toMatch(line)
  expect(JSON.parse((await deadLetters('show', '3:17', '--json')).stdout[0] ?? '')).toMatchObject({
    position: '3:17',
    device_id: 'tv',
    payload_base64: Buffer.from('{}').toString('base64'),
    value_base64: Buffer.from([255, 0]).toString('base64'),
  })
})

test('show of one that is not there is a usage error, also as JSON', async () => {
  const deadLetters = await service({
    getDeadLetter: ({ position }) => {
      throw new PushError('DEAD_LETTER_UNKNOWN', `there is no dead letter at ${position}`)
    },
  })
  const ran = await deadLetters('show', '0:9', '--json')
  expect(ran).toMatchObject({ code: 2, stderr: ['DEAD_LETTER_UNKNOWN: there is no dead letter at 0:9'] })
  expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({ position: '0:9', error: { reason: 'DEAD_LETTER_UNKNOWN' } })
})

test('replay and purge do nothing unless they are confirmed with what they act on', async () => {
  const called: string[] = []
  const deadLetters = await service({
    replayDeadLetters: () => {
      called.push('replay')
      return { replayedCount: 0, replays: [] }
    },
    purgeDeadLetters: () => {
      called.push('purge')
      return { purgedCount: 0 }
    },
  })
  expect(await deadLetters('replay', '0:1', '0:2')).toEqual({
    code: 2,
    stdout: [],
    stderr: ['error: this sends 2 message(s) again; say that you mean it with --confirm "2"'],
  })
  expect(await deadLetters('replay', '0:1', '0:2', '--confirm', '1')).toMatchObject({
    code: 2,
    stderr: [expect.stringContaining('--confirm "2", not --confirm "1"')],
  })
  expect(await deadLetters('purge', '--before', '7d')).toMatchObject({
    code: 2,
    stderr: ['error: this removes dead letters for good; say that you mean it with --confirm "7d"'],
  })
  expect(await deadLetters('purge', '--before', '7d', '--confirm', '8d')).toMatchObject({ code: 2 })
  expect(called).toEqual([])
})

const { REPLAYED, WOULD_REPLAY, EXPIRED, FAILED, NOT_TRIED } = DeadLetterReplayState

const replayed = (position: string, state: DeadLetterReplayState, detail = ''): DeadLetterReplay => ({
  position,
  messageId: 'm-1',
  state,
  detail,
})

test('replay passes the positions on and tells what became of each', async () => {
  const asked: ReplayDeadLettersRequest[] = []
  const deadLetters = await service({
    replayDeadLetters: (request) => {
      asked.push(request)
      return {
        replayedCount: 1,
        replays: [
          replayed('0:1', REPLAYED),
          replayed('0:2', EXPIRED, 'it expired at noon'),
          replayed('0:3', NOT_TRIED, 'the call ended\n'),
        ],
      }
    },
  })
  expect(await deadLetters('replay', '0:1', '0:2', '0:3', '--confirm', '3')).toEqual({
    code: 7,
    stdout: ['0:1 m-1 replayed', '0:2 m-1 expired, left alone: it expired at noon', '0:3 m-1 not tried: the call ended\\n'],
    stderr: [],
  })
  expect(asked).toEqual([{ positions: ['0:1', '0:2', '0:3'], dryRun: false }])
  const { stdout } = await deadLetters('replay', '0:1', '0:2', '0:3', '--confirm', '3', '--json')
  expect(stdout.map((line) => JSON.parse(line))).toEqual([
    { position: '0:1', message_id: 'm-1', state: 'REPLAYED' },
    { position: '0:2', message_id: 'm-1', state: 'EXPIRED', detail: 'it expired at noon' },
    { position: '0:3', message_id: 'm-1', state: 'NOT_TRIED', detail: 'the call ended\n' },
  ])
})

test('a dry run needs no confirmation, and sends nothing', async () => {
  const asked: ReplayDeadLettersRequest[] = []
  const deadLetters = await service({
    replayDeadLetters: (request) => {
      asked.push(request)
      return { replayedCount: 1, replays: [replayed('0:1', WOULD_REPLAY)] }
    },
  })
  expect(await deadLetters('replay', '0:1', '--dry-run')).toEqual({ code: 0, stdout: ['0:1 m-1 would be replayed'], stderr: [] })
  expect(asked).toEqual([{ positions: ['0:1'], dryRun: true }])
})

test.for([
  [0, [REPLAYED, REPLAYED]],
  [5, [EXPIRED, EXPIRED]],
  [7, [REPLAYED, EXPIRED]],
  [7, [REPLAYED, FAILED]],
  [8, [FAILED, NOT_TRIED]],
] as [number, DeadLetterReplayState[]][])('a replay ends with %i when its letters are %j', async ([code, states]) => {
  const deadLetters = await service({
    replayDeadLetters: () => ({ replayedCount: 0, replays: states.map((state) => replayed('0:1', state)) }),
  })
  expect((await deadLetters('replay', '0:1', '0:2', '--confirm', '2')).code).toBe(code)
})

test('purge takes an age or a time, and says how many went', async () => {
  const asked: PurgeDeadLettersRequest[] = []
  const deadLetters = await service({
    purgeDeadLetters: (request) => {
      asked.push(request)
      return { purgedCount: 12 }
    },
  })
  const time = '2026-01-01T01:00:00+01:00'
  expect(await deadLetters('purge', '--before', time, '--confirm', time)).toEqual({
    code: 0,
    stdout: ['removed 12 from before 2026-01-01T00:00:00.000Z'],
    stderr: [],
  })
  const before = Date.now()
  const ran = await deadLetters('purge', '--before', '2h', '--confirm', '2h', '--json')
  expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({ purged_count: 12 })
  expect(asked[0]?.before).toEqual({ seconds: 1_767_225_600, nanos: 0 })
  const askedMs = (asked[1]?.before?.seconds ?? 0) * 1_000 + (asked[1]?.before?.nanos ?? 0) / 1_000_000
  expect(askedMs).toBeGreaterThanOrEqual(before - 7_200_000)
  expect(askedMs).toBeLessThanOrEqual(Date.now() - 7_200_000)
})

test('what the service refuses is told as JSON too', async () => {
  const refuse = () => {
    throw new PushError('QUEUE_UNAVAILABLE', 'dead letters cannot be read', {}, { retryAfterMs: 1_000 })
  }
  const deadLetters = await service({ replayDeadLetters: refuse, purgeDeadLetters: refuse })
  for (const args of [
    ['replay', '0:1', '--confirm', '1', '--json'],
    ['purge', '--before', '1d', '--confirm', '1d', '--json'],
  ]) {
    const ran = await deadLetters(...args)
    expect(ran.code).toBe(8)
    expect(JSON.parse(ran.stdout[0] ?? '')).toMatchObject({ error: { reason: 'QUEUE_UNAVAILABLE' } })
  }
})
