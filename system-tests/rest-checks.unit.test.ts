import { describe, expect, test } from 'vitest'
import { check } from './checker.ts'
import type { HandledMessage, ReadDevice, ReadMessage, ReadOutcome, SessionSpan, Story } from './story.ts'

const minute = 60_000
const always: SessionSpan = { sessionId: 's1', openedAt: 0, endedAt: undefined }
const readAt = 2 * minute

interface Parts {
  readonly ttlMs?: number
  readonly handled?: Partial<HandledMessage> | undefined
  readonly read?: Partial<ReadOutcome> | 'nothing'
  readonly sessions?: readonly SessionSpan[]
  readonly device?: Partial<ReadDevice>
}

/** One message `m` for device `d`, accepted at 1,005. */
function story({ ttlMs = 60 * minute, handled, read = {}, sessions = [always], device }: Parts): Story {
  const acceptTime = 1_005
  const answer = { answeredAt: 1_010, messageId: 'id', acceptTime, expireTime: acceptTime + ttlMs, state: 'ACCEPTED', reason: '' }
  const outcome = { deviceId: 'd', state: 'ACKNOWLEDGED', reason: '', final: true }
  const handling = { messageId: 'id', key: 'm', meantFor: 'd', sessionId: 's1', handledAt: 1_050, redelivered: false }
  const message: ReadMessage = { messageId: 'id', readAt, devices: read === 'nothing' ? [] : [{ ...outcome, ...read }] }
  return {
    published: [{ key: 'm', deviceId: 'd', mode: 'QUEUED', priority: 'NORMAL', ttlMs, sentAt: 1_000, answer }],
    devices: [{ deviceId: 'd', processes: [{ sessions, handled: handled ? [{ ...handling, ...handled }] : [] }] }],
    settled: [],
    rest: {
      messages: [message],
      devices: device ? [{ deviceId: 'd', readAt, connected: true, sessionId: 's1', ...device }] : [],
    },
  }
}

const stored = { state: 'STORED', reason: 'OFFLINE', final: false }

test('what was handled and reads so is no violation, nor what lies in the inbox of a device that is away', () => {
  expect(check(story({ handled: {}, device: {} })).violations).toEqual([])
  expect(check(story({ read: stored, sessions: [] })).violations).toEqual([])
})

describe('found is', () => {
  test('a message that nobody knows of', () => {
    expect(check(story({ read: 'nothing', sessions: [] })).violations).toEqual([expect.stringContaining('is lost')])
  })

  test('a message that is on its way when all has come to rest', () => {
    const written = check(story({ read: { state: 'WRITTEN', reason: 'WAIT_ENDED', final: false }, sessions: [] })).violations
    expect(written).toEqual([expect.stringContaining('is lost')])
  })

  test('a message that waits in the inbox of a connected device', () => {
    const waits = check(story({ read: stored })).violations
    expect(waits).toEqual([expect.stringContaining('reads STORED, though its device has been connected for 10000 ms')])
    const justBack = [{ ...always, openedAt: readAt - 9_000 }]
    expect(check(story({ read: stored, sessions: justBack })).violations).toEqual([])
    expect(check(story({ read: stored, sessions: justBack }), { inboxWaitMs: 5_000 }).violations).toHaveLength(1)
  })

  test('a message that was handled and still waits, or of which nothing is recorded', () => {
    const sessions = [{ ...always, endedAt: 5_000 }]
    const waits = check(story({ handled: {}, read: stored, sessions })).violations
    expect(waits).toEqual([expect.stringContaining('was handled by its device, but it reads STORED OFFLINE')])
    const silent = check(story({ handled: {}, read: 'nothing', sessions })).violations
    expect(silent).toEqual([expect.stringContaining('but nothing is recorded of it')])
  })

  test('a message that was handled and answered, and reads as expired', () => {
    const expired = { ttlMs: minute, handled: {}, read: { state: 'EXPIRED' } }
    expect(check(story(expired)).violations).toEqual([expect.stringContaining('but it reads EXPIRED')])
    // The connection went with the answer, and nobody could send the message again in time.
    expect(check(story({ ...expired, sessions: [{ ...always, endedAt: 1_100 }] })).violations).toEqual([])
  })

  test('a message that reads as acknowledged, and no handler has seen it', () => {
    expect(check(story({})).violations).toEqual([expect.stringContaining('counts as acknowledged')])
  })

  test('a receipt at another device', () => {
    const elsewhere = check(story({ handled: {}, read: { deviceId: 'e' } })).violations
    expect(elsewhere).toEqual([
      expect.stringContaining('reads ACKNOWLEDGED at e'),
      expect.stringContaining('but nothing is recorded of it'),
    ])
  })

  test('a final state that nothing explains', () => {
    const dropped = check(story({ read: { state: 'DROPPED', reason: 'INBOX_FULL' }, sessions: [] }))
    expect(dropped.violations).toEqual([expect.stringContaining('nothing in this run explains')])
    expect(dropped.counts.undelivered).toEqual({ 'DROPPED INBOX_FULL': 1 })
  })

  test.each([
    ['another session', { sessionId: 's2' }, 'counts as having session s2'],
    ['no session', { connected: false, sessionId: '' }, 'counts as having no session'],
  ])('a connected device that counts as having %s', (_, device, words) => {
    expect(check(story({ handled: {}, device })).violations).toEqual([expect.stringContaining(words)])
  })

  test('a device that counts as connected by a session that has ended', () => {
    const gone = { handled: {}, sessions: [{ ...always, endedAt: 50_000 }], device: {} }
    expect(check(story(gone)).violations).toEqual([expect.stringContaining('which ended 70000 ms ago')])
    expect(check(story({ ...gone, device: { connected: false } })).violations).toEqual([])
  })
})

test('the session that a device moves to counts before its welcome has come there', () => {
  const sessions = [
    { ...always, endedAt: 120_050 },
    { ...always, sessionId: 's2', openedAt: 120_050 },
  ]
  expect(check(story({ handled: {}, sessions, device: { sessionId: 's2' } })).violations).toEqual([])
  const never = check(story({ handled: {}, sessions, device: { sessionId: 's3' } })).violations
  expect(never).toEqual([expect.stringContaining('counts as having session s3')])
})

test('time to live 0 may have been handled and read as dropped', () => {
  const dropped = { ttlMs: 0, handled: {}, read: { state: 'DROPPED', reason: 'UNKNOWN' } }
  expect(check(story(dropped)).violations).toEqual([])
})
