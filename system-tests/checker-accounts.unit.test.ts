import { describe, expect, test } from 'vitest'
import { check, unfinished, unsettled } from './checker.ts'
import type {
  DeviceProcessLog,
  HandledMessage,
  PublishedMessage,
  ReadMessage,
  ReadOutcome,
  SettledMessage,
  Story,
} from './story.ts'
import { belongsSince } from './story-index.ts'

const readAt = 60_000

/** One message to account `a`, published at 1,000 and accepted as `id-m`. */
const message: PublishedMessage = {
  key: 'm',
  deviceId: '',
  accountId: 'a',
  mode: 'QUEUED',
  priority: 'NORMAL',
  ttlMs: 3_600_000,
  sentAt: 1_000,
  answer: { answeredAt: 1_010, messageId: 'id-m', acceptTime: 1_005, expireTime: 3_601_005, state: 'ACCEPTED', reason: '' },
}

/** A process of a device in an account, with one session. */
function inAccount(accountId: string | undefined, openedAt = 0, handled: HandledMessage[] = []): DeviceProcessLog {
  return { accountId, sessions: [{ sessionId: `s${openedAt}`, openedAt, endedAt: undefined }], handled }
}

const handling = (over: Partial<HandledMessage> = {}): HandledMessage => ({
  messageId: 'id-m',
  key: 'm',
  meantFor: 'account/a',
  sessionId: 's0',
  handledAt: 1_050,
  redelivered: false,
  ...over,
})

function line(deviceId: string, over: Partial<SettledMessage> = {}): SettledMessage {
  const one = { state: 'ACKNOWLEDGED', reason: '', settledAt: 1_060, origin: 'queue', attemptCount: 1 }
  return { messageId: 'id-m', deviceId, ...one, ...over }
}

const outcome = (deviceId: string, over: Partial<ReadOutcome> = {}): ReadOutcome => ({
  deviceId,
  state: 'ACKNOWLEDGED',
  reason: '',
  final: true,
  ...over,
})

const mismatch = { state: 'DROPPED', reason: 'ACCOUNT_MISMATCH' }

interface Parts {
  /** Processes by device. */
  readonly devices: Readonly<Record<string, readonly DeviceProcessLog[]>>
  readonly settled?: readonly SettledMessage[]
  readonly read?: readonly ReadOutcome[]
  readonly published?: readonly PublishedMessage[]
}

function story({ devices, settled = [], read, published = [message] }: Parts): Story {
  const messages: ReadMessage[] = [{ messageId: 'id-m', readAt, devices: read ?? [] }]
  return {
    published,
    devices: Object.entries(devices).map(([deviceId, processes]) => ({ deviceId, processes })),
    settled,
    rest: read && { messages, devices: [] },
  }
}

const got = () => inAccount('a', 0, [handling()])

test('a message that every device of its account has handled, and nobody else, is no violation', () => {
  const told = story({
    devices: { d: [got()], e: [got()], other: [inAccount('b')], none: [inAccount(undefined)] },
    settled: [line('d'), line('e')],
    read: [outcome('d'), outcome('e')],
  })
  expect(check(told).violations).toEqual([])
  expect(check(told).counts).toMatchObject({ accepted: 2, delivered: 2, undelivered: {} })
  expect(unfinished(told)).toEqual([])
  expect(unsettled(told)).toEqual([])
})

describe('found is', () => {
  test('a device of the account without an outcome, whatever the others have', () => {
    const left = story({ devices: { d: [got()], e: [inAccount('a')] }, settled: [line('d')] })
    expect(check(left).violations).toEqual([expect.stringMatching(/for e of a was accepted and is lost/)])
    expect(unfinished(left).map(({ deviceId }) => deviceId)).toEqual(['e'])
    expect(unsettled(left).map(({ deviceId }) => deviceId)).toEqual(['e'])
  })

  test('a message shown by a device that belongs to another account, to none, or has changed to another', () => {
    const shown = (processes: DeviceProcessLog[]) => check(story({ devices: { d: processes }, settled: [line('d')] })).violations
    expect(shown([inAccount('a'), inAccount('b', 500, [handling()])])).toEqual([
      'd, which belonged to b, has handled m, meant for account/a',
    ])
    expect(shown([inAccount('a'), inAccount(undefined, 500, [handling()])])).toEqual([
      expect.stringContaining('belonged to no account'),
    ])
    expect(shown([inAccount('b', 0, [handling()])])).toContain('d, which belonged to b, has handled m, meant for account/a')
  })

  test('a mismatch at a device that has belonged to the account all the time', () => {
    const dropped = story({ devices: { d: [inAccount('a')] }, settled: [line('d', mismatch)] })
    expect(check(dropped).violations).toEqual([expect.stringContaining('DROPPED (ACCOUNT_MISMATCH)')])
  })

  test('a word of a router about a device that never belonged to the account', () => {
    const wrong = story({ devices: { d: [got()], e: [inAccount('b')] }, settled: [line('d'), line('e', mismatch)] })
    expect(check(wrong).violations).toEqual(['message id-m (m) was DROPPED at e, which it was not for'])
  })

  test('a receipt at a device that never belonged to the account, and two at one', () => {
    const parts = { devices: { d: [got()], e: [inAccount('b')] }, settled: [line('d')] }
    expect(check(story({ ...parts, read: [outcome('d'), outcome('e')] })).violations).toEqual([
      expect.stringContaining('reads ACKNOWLEDGED at e'),
    ])
    expect(check(story({ ...parts, read: [outcome('d'), outcome('d', mismatch)] })).violations).toEqual([
      expect.stringContaining('reads DROPPED at d, which has another outcome'),
    ])
  })

  test('a message that was handled and answered, and reads as a mismatch, also where the account changed later', () => {
    const changed = story({
      devices: { d: [got(), inAccount('b', 9_000)] },
      settled: [line('d', mismatch)],
      read: [outcome('d', mismatch)],
    })
    expect(check(changed).violations).toEqual([expect.stringContaining('was handled by its device, but it reads DROPPED')])
  })
})

describe('allowed is', () => {
  test('anything or nothing at a device that has changed its account, as long as it shows nothing', () => {
    const devices = { d: [inAccount('a'), inAccount('b', 1_500)] }
    expect(check(story({ devices })).violations).toEqual([])
    expect(check(story({ devices, settled: [line('d', mismatch)], read: [outcome('d', mismatch)] })).violations).toEqual([])
    expect(check(story({ devices, settled: [line('d', mismatch)] })).counts).toMatchObject({
      accepted: 1,
      undelivered: { 'DROPPED ACCOUNT_MISMATCH': 1 },
    })
  })

  test('a delivery to a device that has come to the account since', () => {
    const devices = { d: [inAccount('b'), inAccount('a', 1_020, [handling({ sessionId: 's1020' })])] }
    expect(check(story({ devices, settled: [line('d')] })).violations).toEqual([])
  })

  test('a mismatch after a delivery whose answer was lost with the connection, where the account changed then', () => {
    const cut = { ...got(), sessions: [{ sessionId: 's0', openedAt: 0, endedAt: 1_060 }] }
    const parts = { settled: [line('d', mismatch)], read: [outcome('d', mismatch)] }
    expect(check(story({ devices: { d: [cut, inAccount('b', 2_000)] }, ...parts })).violations).toEqual([])
  })
})

describe('repeats under one idempotency key', () => {
  const keyed: PublishedMessage = { ...message, deviceId: 'd', idempotencyKey: 'k' }
  const { accountId, ...toDevice } = keyed
  const repeat = (over: { messageId?: string; key?: string } = {}): PublishedMessage => {
    const { key = 'm', messageId = 'id-m' } = over
    return { ...toDevice, key, sentAt: 3_000, answer: { ...answerOf(toDevice), answeredAt: 3_010, acceptTime: 3_005, messageId } }
  }
  const toD = handling({ meantFor: 'd' })
  const parts = { devices: { d: [inAccount(undefined, 0, [toD])] }, settled: [line('d')], read: [outcome('d')] }

  test('that have one id and were handled once are no violation', () => {
    const { violations, counts } = check(story({ ...parts, published: [toDevice, repeat()] }))
    expect(violations).toEqual([])
    expect(counts).toMatchObject({ accepted: 1, delivered: 1 })
  })

  test('are accepted with the first call: what routers say before the second is no mistake', () => {
    const away: DeviceProcessLog = {
      sessions: [{ sessionId: 's2', openedAt: 2_900, endedAt: undefined }],
      handled: [{ ...toD, handledAt: 2_950 }],
    }
    const stored = line('d', { state: 'STORED', reason: 'OFFLINE', settledAt: 1_100 })
    const later = { ...parts, devices: { d: [away] }, settled: [stored, line('d', { settledAt: 2_960 })] }
    expect(check(story({ ...later, published: [toDevice, repeat()] })).violations).toEqual([])
  })

  test('that have two ids are found', () => {
    const two = check(
      story({
        ...parts,
        published: [toDevice, repeat({ messageId: 'id-n' })],
        settled: [line('d'), { ...line('d'), messageId: 'id-n' }],
      }),
    )
    expect(two.violations).toContain('m was published 2 times, and has the ids id-m, id-n')
  })

  test('two messages under one id are found', () => {
    expect(check(story({ ...parts, published: [toDevice, repeat({ key: 'n' })] })).violations).toContain('m, n have one id, id-m')
  })

  test('a message handled under two ids is found', () => {
    const twice = { d: [inAccount(undefined, 0, [toD, { ...toD, messageId: 'id-n' }])] }
    expect(check(story({ ...parts, devices: twice, published: [toDevice] })).violations).toContain(
      'd has handled m under 2 ids in one process',
    )
  })

  test('are not held to an order, as either place in the queue may be theirs', () => {
    const between: PublishedMessage = {
      ...toDevice,
      key: 'n',
      sentAt: 2_000,
      answer: { ...answerOf(toDevice), answeredAt: 2_010, messageId: 'id-n', acceptTime: 2_005 },
    }
    const order = [handling({ meantFor: 'd', messageId: 'id-n', key: 'n' }), toD]
    const lines = [line('d'), { ...line('d'), messageId: 'id-n' }]
    const mixed = story({
      devices: { d: [inAccount(undefined, 0, order)] },
      settled: lines,
      published: [toDevice, between, repeat()],
    })
    expect(check(mixed).violations).toEqual([])
  })
})

function answerOf({ answer }: PublishedMessage): NonNullable<PublishedMessage['answer']> {
  if (answer === undefined) throw new Error('not answered')
  return answer
}

test('a device belongs to an account since a moment when its newest session then, and each process after it, does', () => {
  const device = (...processes: DeviceProcessLog[]) => ({ deviceId: 'd', processes })
  expect(belongsSince(device(inAccount('a')), 'a', 10)).toBe(true)
  expect(belongsSince(device(inAccount('a', 20)), 'a', 10)).toBe(false)
  expect(belongsSince(device(inAccount('b'), inAccount('a', 5)), 'a', 10)).toBe(true)
  expect(belongsSince(device(inAccount('a'), inAccount('b', 20), inAccount('a', 30)), 'a', 10)).toBe(false)
  // It has begun to log in elsewhere, whatever came of it.
  expect(belongsSince(device(inAccount('a'), { accountId: 'b', sessions: [], handled: [] }), 'a', 10)).toBe(false)
  expect(belongsSince(device(), 'a', 10)).toBe(false)
})
