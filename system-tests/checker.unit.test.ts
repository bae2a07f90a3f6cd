import { describe, expect, test } from 'vitest'
import { check, unfinished, unsettled } from './checker.ts'
import type {
  HandledMessage,
  PublishAnswer,
  PublishedMessage,
  ReadDevice,
  ReadMessage,
  ReadOutcome,
  SessionSpan,
  SettledMessage,
  Story,
} from './story.ts'
import { wasConnectedThroughout } from './story-index.ts'

const hour = 3_600_000

function published(key: string, over: Partial<PublishedMessage> & { answered?: Partial<PublishAnswer> } = {}): PublishedMessage {
  const { answered, ...rest } = over
  const message = { key, deviceId: 'd', mode: 'QUEUED', priority: 'NORMAL', ttlMs: hour, sentAt: 1_000, ...rest } as const
  return {
    ...message,
    answer: {
      answeredAt: message.sentAt + 10,
      messageId: `id-${key}`,
      acceptTime: message.sentAt + 5,
      expireTime: message.sentAt + 5 + message.ttlMs,
      state: 'ACCEPTED',
      reason: '',
      ...answered,
    },
  }
}

function handled(key: string, over: Partial<HandledMessage> = {}): HandledMessage {
  return { messageId: `id-${key}`, key, meantFor: 'd', sessionId: 's1', handledAt: 1_050, redelivered: false, ...over }
}

function settled(key: string, over: Partial<SettledMessage> = {}): SettledMessage {
  const one = { deviceId: 'd', state: 'ACKNOWLEDGED', reason: '', settledAt: 1_060, origin: 'queue', attemptCount: 1 }
  return { messageId: `id-${key}`, ...one, ...over }
}

/** What the plane says of it a minute later. */
function read(key: string, over: Partial<ReadOutcome> = {}, readAt = 60_000): ReadMessage {
  const outcome = { deviceId: 'd', state: 'ACKNOWLEDGED', reason: '', final: true, ...over }
  return { messageId: `id-${key}`, readAt, devices: [outcome] }
}

const always: SessionSpan = { sessionId: 's1', openedAt: 0, endedAt: undefined }

function story(parts: {
  published?: PublishedMessage[]
  handled?: HandledMessage[]
  settled?: SettledMessage[]
  sessions?: SessionSpan[]
  read?: ReadMessage[]
  readDevices?: ReadDevice[]
}): Story {
  return {
    published: parts.published ?? [],
    devices: [{ deviceId: 'd', processes: [{ sessions: parts.sessions ?? [always], handled: parts.handled ?? [] }] }],
    settled: parts.settled ?? [],
    rest: (parts.read || parts.readDevices) && { messages: parts.read ?? [], devices: parts.readDevices ?? [] },
  }
}

const good = () => story({ published: [published('m')], handled: [handled('m')], settled: [settled('m')] })

test('a message that was handled once and acknowledged is no violation', () => {
  const report = check(good())
  expect(report.violations).toEqual([])
  expect(report.counts).toEqual({ accepted: 1, refused: 0, delivered: 1, undelivered: {}, stored: 0, ordered: 0 })
})

describe('found is', () => {
  test('an accepted message that vanished', () => {
    const vanished = story({ published: [published('m')] })
    expect(check(vanished).violations).toEqual([expect.stringContaining('is lost')])
    expect(check(vanished).counts.undelivered).toEqual({ LOST: 1 })
    expect(unfinished(vanished).map(({ key }) => key)).toEqual(['m'])
  })

  test('a message that another device has handled', () => {
    const elsewhere = {
      ...good(),
      devices: [...good().devices, { deviceId: 'e', processes: [{ sessions: [always], handled: [handled('m')] }] }],
    }
    expect(check(elsewhere).violations).toEqual(['e has handled message id-m (m), meant for d'])
  })

  test('a message that only another device has handled, as lost as well', () => {
    const misled = {
      ...good(),
      settled: [],
      devices: [{ deviceId: 'e', processes: [{ sessions: [always], handled: [handled('m')] }] }],
    }
    expect(check(misled).violations).toHaveLength(2)
  })

  test('a message that came under the id of another', () => {
    const swapped = story({ published: [published('m')], handled: [handled('m', { key: 'n' })], settled: [settled('m')] })
    expect(check(swapped).violations).toEqual(['d has got n under the id of m'])
  })

  test('a message that one process has handled twice, also when its publish had failed', () => {
    const twice = story({ handled: [handled('m'), handled('m', { sessionId: 's2' })] })
    expect(check(twice).violations).toEqual(['d has handled message id-m 2 times in one process'])
  })

  test('an acknowledgement of what no handler has seen, by a router or in the answer to a direct call', () => {
    const bySettled = story({ published: [published('m')], settled: [settled('m')] })
    expect(check(bySettled).violations).toEqual([expect.stringContaining('counts as acknowledged')])
    const byAnswer = story({ published: [published('m', { mode: 'DIRECT', answered: { state: 'ACKNOWLEDGED' } })] })
    expect(check(byAnswer).violations).toEqual([expect.stringContaining('counts as acknowledged')])
  })

  test.each([
    ['DROPPED', 'OFFLINE'],
    ['DROPPED', 'ACK_TIMEOUT'],
    ['DROPPED', 'UNKNOWN'],
    ['DROPPED', ''],
    ['FAILED', 'NACKED'],
    ['EXPIRED', ''],
    ['DEAD_LETTERED', 'TOO_LARGE'],
    ['WRITTEN', 'WAIT_ENDED'],
  ])('an end that nothing explains: %s %s', (state, reason) => {
    const odd = story({ published: [published('m')], settled: [settled('m', { state, reason })], sessions: [] })
    expect(check(odd).violations).toEqual([expect.stringContaining('nothing in this run explains')])
  })

  test.each(['OFFLINE', 'UNREACHABLE'])('%s of a device that was there all the time, from the queue or direct', (reason) => {
    const message = { ttlMs: 0, answered: { expireTime: 11_000 } }
    const queued = story({ published: [published('m', message)], settled: [settled('m', { state: 'DROPPED', reason })] })
    expect(check(queued).violations).toEqual([expect.stringContaining('had a session all the time')])
    const answered = { expireTime: 11_000, state: 'DROPPED', reason }
    const direct = story({ published: [published('m', { ttlMs: 0, mode: 'DIRECT', answered })] })
    expect(check(direct).violations).toEqual([expect.stringContaining('had a session all the time')])
    expect(check(direct, { edgesGone: true }).violations).toEqual([])
  })

  test('OFFLINE of a device that went only after its message was stored', () => {
    const sessions = [{ ...always, endedAt: 2_000 }]
    const early = story({
      published: [published('m')],
      settled: [settled('m', { state: 'STORED', reason: 'OFFLINE', settledAt: 1_500 })],
      sessions,
    })
    expect(check(early).violations).toEqual([expect.stringContaining('stored as OFFLINE after 495 ms, though its device')])
    expect(check(early, { noticeMs: 600 }).violations).toEqual([])
  })

  test('a message that expires beside an open session', () => {
    const expired = story({
      published: [published('m', { ttlMs: 5_000 })],
      settled: [settled('m', { state: 'EXPIRED', settledAt: 6_010 })],
    })
    expect(check(expired).violations).toEqual([expect.stringContaining('has expired, though')])
  })

  test('a message that lies in the inbox for long beside an open session, though it comes at last', () => {
    const sessions = [always, { sessionId: 's2', openedAt: 12_000, endedAt: undefined }]
    const late = (parts: { sessions: SessionSpan[] }) =>
      story({
        published: [published('m')],
        handled: [handled('m', { handledAt: 13_000, sessionId: 's2' })],
        settled: [settled('m', { state: 'STORED', reason: 'UNREACHABLE', settledAt: 2_500 })],
        ...parts,
      })
    expect(check(late({ sessions })).violations).toEqual([expect.stringContaining('waited 10500 ms in the inbox')])
    expect(check(late({ sessions }), { inboxWaitMs: 11_000 }).violations).toEqual([])
    // It was away in between.
    expect(check(late({ sessions: [{ ...always, endedAt: 11_000 }, ...sessions.slice(1)] })).violations).toEqual([])
  })

  test('a message that is handled after its time', () => {
    const late = story({
      published: [published('m', { ttlMs: 1_000 })],
      handled: [handled('m', { handledAt: 2_600 })],
      settled: [settled('m')],
    })
    expect(check(late).violations).toEqual(['d has handled message id-m 595 ms after it had expired'])
    expect(check(late, { toleranceMs: 600 }).violations).toEqual([])
  })

  test('a message that overtakes an earlier one of its device, priority and session', () => {
    const first = published('first')
    const second = published('second', { sentAt: 1_020 })
    const overtaken = (parts: {
      first?: Partial<HandledMessage>
      settled?: Partial<SettledMessage>
      second?: PublishedMessage
    }) =>
      check(
        story({
          published: [first, parts.second ?? second],
          handled: [handled('second'), handled('first', parts.first)],
          settled: [settled('first', parts.settled), settled('second')],
        }),
      ).violations
    expect(overtaken({})).toEqual([expect.stringContaining('before QUEUED NORMAL message first')])
    // Nobody promises anything where the other session, the other priority or a second attempt comes in between.
    expect(overtaken({ first: { sessionId: 's2' } })).toEqual([])
    expect(overtaken({ first: { redelivered: true } })).toEqual([])
    expect(overtaken({ settled: { attemptCount: 2 } })).toEqual([])
    expect(overtaken({ settled: { state: 'STORED' } })).toEqual([])
    expect(overtaken({ second: published('second', { sentAt: 1_020, priority: 'HIGH' }) })).toEqual([])
    const direct = published('second', { sentAt: 1_020, mode: 'DIRECT', answered: { state: 'ACKNOWLEDGED' } })
    expect(overtaken({ second: direct })).toEqual([])
    // Both calls were under way at once.
    expect(overtaken({ second: published('second', { sentAt: 1_009 }) })).toEqual([])
  })

  test('an overtaking that is not between neighbours', () => {
    const messages = ['a', 'b', 'c'].map((key, index) => published(key, { sentAt: 1_000 + index * 100 }))
    const mixed = story({
      published: messages,
      handled: [handled('c'), handled('b'), handled('a')],
      settled: messages.map(({ key }) => settled(key)),
    })
    expect(check(mixed).violations).toHaveLength(2)
  })
})

describe('allowed is', () => {
  test('OFFLINE of a device with a gap between two sessions after the message was accepted', () => {
    const sessions = [
      { sessionId: 's1', openedAt: 0, endedAt: 1_100 },
      { sessionId: 's2', openedAt: 1_101, endedAt: undefined },
    ]
    const gap = story({
      published: [published('m')],
      settled: [settled('m', { state: 'STORED', reason: 'OFFLINE', settledAt: 1_200 })],
      sessions,
    })
    expect(check(gap).violations).toEqual([])
    expect(check(gap).counts).toMatchObject({ undelivered: { 'STORED OFFLINE': 1 }, stored: 1 })
  })

  test('STORED of a device that never was, however long ago', () => {
    const stored = { state: 'STORED', reason: 'OFFLINE' }
    const nobody = story({
      published: [published('m', { deviceId: 'nobody' })],
      settled: [settled('m', { ...stored, deviceId: 'nobody' })],
      read: [read('m', { ...stored, deviceId: 'nobody', final: false })],
    })
    expect(check(nobody).violations).toEqual([])
    expect(unfinished(nobody)).toEqual([])
  })

  test('a drop with time to live 0 for a device that was away', () => {
    const away = story({
      published: [published('m', { ttlMs: 0, answered: { expireTime: 11_000 } })],
      settled: [settled('m', { state: 'DROPPED', reason: 'OFFLINE' })],
      sessions: [],
    })
    expect(check(away).violations).toEqual([])
  })

  test('UNKNOWN with time to live 0, EXPIRED after the time, and whatever the run allows', () => {
    const ends = [
      story({
        published: [published('m', { ttlMs: 0, answered: { expireTime: 11_000 } })],
        settled: [settled('m', { state: 'DROPPED', reason: 'UNKNOWN' })],
      }),
      story({
        published: [published('m', { ttlMs: 1_000 })],
        settled: [settled('m', { state: 'EXPIRED', settledAt: 2_010 })],
        sessions: [],
      }),
    ]
    for (const end of ends) expect(check(end).violations).toEqual([])
    const slow = story({ published: [published('m')], settled: [settled('m', { state: 'DROPPED', reason: 'SLOW_CONSUMER' })] })
    expect(check(slow, { dropReasons: ['SLOW_CONSUMER'] }).violations).toEqual([])
    expect(check(slow).violations).toHaveLength(1)
  })

  test('a message handled once by each of two processes', () => {
    const restarted = {
      ...good(),
      devices: [
        {
          deviceId: 'd',
          processes: [
            { sessions: [always], handled: [handled('m')] },
            { sessions: [], handled: [handled('m', { sessionId: 's2' })] },
          ],
        },
      ],
    }
    expect(check(restarted).violations).toEqual([])
  })

  test('anything, of a message whose publish has failed', () => {
    const refused: PublishedMessage = {
      key: 'm',
      deviceId: 'd',
      mode: 'QUEUED',
      priority: 'LOW',
      ttlMs: hour,
      sentAt: 1_000,
      failure: 'UNAVAILABLE',
    }
    expect(check(story({ published: [refused] })).violations).toEqual([])
    expect(check(story({ published: [refused], handled: [handled('m')] })).counts).toMatchObject({ accepted: 0, refused: 1 })
  })
})

test('a message is unsettled until a router has said its last word, also when its device has it', () => {
  const waiting = { ...good(), settled: [] }
  expect(unfinished(waiting)).toEqual([])
  expect(unsettled(waiting).map(({ key }) => key)).toEqual(['m'])
  expect(unsettled(good())).toEqual([])
})

test('overlapping and touching sessions leave no gap, whatever their order in the log', () => {
  const device = (sessions: Array<[number, number | undefined]>) => ({
    deviceId: 'd',
    processes: sessions.map(([openedAt, endedAt]) => ({ sessions: [{ sessionId: 's', openedAt, endedAt }], handled: [] })),
  })
  expect(wasConnectedThroughout(device([[10, 60], [0, 20], [60, undefined]]), 5, 1_000)).toBe(true) // biome-ignore format: one line shows the picture
  expect(wasConnectedThroughout(device([[0, 20], [21, undefined]]), 5, 1_000)).toBe(false) // biome-ignore format: as above
  expect(wasConnectedThroughout(device([[6, undefined]]), 5, 1_000)).toBe(false)
  expect(wasConnectedThroughout(device([[0, 10]]), 20, 30)).toBe(false)
  expect(wasConnectedThroughout(device([]), 5, 6)).toBe(false)
  expect(wasConnectedThroughout(undefined, 5, 6)).toBe(false)
})
