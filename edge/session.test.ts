import { describe, expect, test } from 'vitest'
import { CloseSessionResult } from '../gen/push/internal/v1/edge.ts'
import type { SessionRow } from '../gen/push/internal/v1/registry.ts'
import { closeKinds } from './close-codes.ts'
import { isLower, Session, type SessionEffect, type SessionEvent } from './session.ts'

const row: SessionRow = {
  deviceId: 'd',
  epoch: 5,
  sessionId: 'old',
  edgeId: 'edge-b',
  edgeAddress: 'b:1',
  accountId: '',
  protocol: 'push.v1.json',
  connectedTime: 0,
}
const rules = { takeoversMax: 5 }
const registered: SessionEvent = { type: 'registered', epoch: 10, attempts: 1, replaced: [] }
const replacedBy = (epoch: number, sessionId: string): SessionEvent => ({ type: 'replaced', replacer: { epoch, sessionId } })
const answered = (effects: SessionEffect[]) => effects.find((effect) => effect.type === 'answer close')?.result
const types = (effects: SessionEffect[]) => effects.map(({ type }) => type)
const closedWith = (effects: SessionEffect[]) => effects.find((effect) => effect.type === 'close socket')?.kind
const unregistered = (effects: SessionEffect[]) =>
  effects.filter((effect) => effect.type === 'unregister').map(({ epoch }) => epoch)

const open = (sessionId = 'm') => {
  const session = new Session(sessionId, rules)
  session.handle(registered)
  return session
}

test('sessions are ordered by epoch, equal epochs by session id', () => {
  expect(isLower({ epoch: 1, sessionId: 'z' }, { epoch: 2, sessionId: 'a' })).toBe(true)
  expect(isLower({ epoch: 2, sessionId: 'a' }, { epoch: 2, sessionId: 'b' })).toBe(true)
  expect(isLower({ epoch: 2, sessionId: 'b' }, { epoch: 2, sessionId: 'b' })).toBe(false)
  expect(isLower({ epoch: 3, sessionId: 'a' }, { epoch: 2, sessionId: 'b' })).toBe(false)
})

describe('two devices under one identity', () => {
  const minute = 60_000_000
  /** A session that is open, with so many changes before it. */
  const changed = (takeovers: number) => {
    const session = new Session('m', rules)
    session.handle({ ...registered, takeovers })
    return session
  }
  const kinds = (effects: SessionEffect[]) => types(effects).filter((type) => type !== 'answer close')

  test('five changes in ten minutes are the life of a device; the sixth closes with 4006, and is reported once', () => {
    const fifth = changed(4)
    expect(kinds(fifth.handle(replacedBy(10 + minute, 'n')))).toEqual(['finish'])
    expect(closedWith(fifth.handle({ type: 'finished' }))).toBe(closeKinds.superseded)
    const sixth = changed(5)
    const effects = sixth.handle(replacedBy(10 + minute, 'n'))
    expect(effects).toContainEqual({ type: 'duplicate identity', takeovers: 6 })
    expect(kinds(sixth.handle(replacedBy(10 + minute, 'o')))).toEqual([])
    expect(closedWith(sixth.handle({ type: 'finished' }))).toBe(closeKinds.duplicateIdentity)
  })

  test('a change after ten quiet minutes begins anew, and the one that a goaway asked for is none', () => {
    const quiet = changed(9)
    quiet.handle(replacedBy(10 + 10 * minute, 'n'))
    expect(closedWith(quiet.handle({ type: 'finished' }))).toBe(closeKinds.superseded)
    const left = changed(9)
    left.handle({ type: 'leave', reason: 'drain', slotMs: 0 })
    left.handle(replacedBy(10 + minute, 'n'))
    expect(closedWith(left.handle({ type: 'finished' }))).toBe(closeKinds.superseded)
  })

  test('one that was replaced while it registered is told the same', () => {
    const session = new Session('m', rules)
    session.handle(replacedBy(11, 'n'))
    const effects = session.handle({ ...registered, takeovers: 7 })
    expect(closedWith(effects)).toBe(closeKinds.duplicateIdentity)
    expect(effects).toContainEqual({ type: 'duplicate identity', takeovers: 8 })
  })
})

describe('registering', () => {
  test('welcomes when the registry has the row, and not before', () => {
    const session = new Session('m', rules)
    expect(session).toMatchObject({ state: 'registering', writes: false, accepts: true })
    expect(types(session.handle(registered))).toEqual(['welcome'])
    expect(session).toMatchObject({ state: 'open', writes: true, order: { epoch: 10, sessionId: 'm' } })
  })

  test('tells the sessions that it replaces', () => {
    const effects = new Session('m', rules).handle({ ...registered, replaced: [row] })
    expect(effects).toContainEqual({ type: 'tell replaced', rows: [row], replacer: { epoch: 10, sessionId: 'm' } })
  })

  test('closes with 4005 when a newer session holds the device, and removes all its rows', () => {
    const effects = new Session('m', rules).handle({ type: 'superseded', attempts: 1 })
    expect(closedWith(effects)).toBe(closeKinds.superseded)
    expect(unregistered(effects)).toEqual([0])
  })

  test('a close that comes while registering is remembered and judged when the epoch is known', () => {
    const session = new Session('m', rules)
    expect(answered(session.handle(replacedBy(11, 'a')))).toBe(CloseSessionResult.REMEMBERED)
    // A lower one that comes later must not hide the higher one.
    expect(answered(session.handle(replacedBy(9, 'a')))).toBe(CloseSessionResult.REMEMBERED)
    const effects = session.handle(registered)
    expect(types(effects)).not.toContain('welcome')
    expect(closedWith(effects)).toBe(closeKinds.superseded)
    expect(unregistered(effects)).toEqual([10])
  })

  test('a remembered close by a session that turns out to be older does nothing', () => {
    const session = new Session('m', rules)
    session.handle(replacedBy(10, 'a'))
    expect(types(session.handle(registered))).toEqual(['welcome'])
  })

  test('equal epochs are decided by session id', () => {
    const lower = new Session('a', rules)
    lower.handle(replacedBy(10, 'b'))
    expect(closedWith(lower.handle(registered))).toBe(closeKinds.superseded)
  })

  test('is over after its time, while a call is under way; the rows are removed when that has ended', () => {
    const session = new Session('m', rules)
    const effects = session.handle({ type: 'registration late' })
    expect(closedWith(effects)).toBe(closeKinds.tryAgainLater)
    expect(unregistered(effects)).toEqual([])
    expect(unregistered(session.handle({ type: 'registered', epoch: 10, attempts: 2, replaced: [] }))).toEqual([0])
  })

  test('a session that ended meanwhile still tells those that it has replaced', () => {
    const session = new Session('m', rules)
    session.handle({ type: 'socket closed' })
    const effects = session.handle({ ...registered, replaced: [row] })
    expect(types(effects)).toEqual(['tell replaced', 'unregister'])
  })

  test('refused at once, nothing was written and nothing is removed', () => {
    const effects = new Session('m', rules).handle({ type: 'registration failed', attempts: 0 })
    expect(closedWith(effects)).toBe(closeKinds.tryAgainLater)
    expect(unregistered(effects)).toEqual([])
  })
})

describe('the end', () => {
  test('removes its row by epoch after one attempt, all its rows after more or a lost answer', () => {
    const ended = (event: SessionEvent) => {
      const session = new Session('m', rules)
      session.handle(event)
      return unregistered(session.handle({ type: 'socket closed' }))
    }
    expect(ended(registered)).toEqual([10])
    expect(ended({ type: 'registered', epoch: 10, attempts: 2, replaced: [] })).toEqual([0])
    expect(unregistered(new Session('m', rules).handle({ type: 'registration failed', attempts: 1 }))).toEqual([0])
  })

  test('comes once: what happens after it changes nothing and removes nothing again', () => {
    const session = open()
    expect(unregistered(session.handle({ type: 'end', kind: closeKinds.noPong }))).toEqual([10])
    for (const event of [
      { type: 'socket closed' },
      { type: 'end', kind: closeKinds.lifetime },
      { type: 'finished' },
      { type: 'registration late' },
      { type: 'leave', reason: 'drain', slotMs: 0 },
    ] satisfies SessionEvent[]) {
      expect(session.handle(event)).toEqual([])
    }
    expect(answered(session.handle(replacedBy(99, 'z')))).toBe(CloseSessionResult.CLOSED)
  })

  test.each(['registering', 'open', 'leaving'])('from %s gives back what waits before the rows go', (state) => {
    const session = new Session('m', rules)
    if (state !== 'registering') session.handle(registered)
    if (state === 'leaving') session.handle({ type: 'leave', reason: 'drain', slotMs: 1 })
    expect(session.state).toBe(state)
    expect(types(session.handle({ type: 'socket closed' }))).toEqual(
      state === 'registering' ? ['give back'] : ['give back', 'unregister'],
    )
  })
})

describe('leaving', () => {
  test('goaway keeps the connection and takes deliveries', () => {
    const session = open()
    expect(session.handle({ type: 'leave', reason: 'lifetime', slotMs: 7 })).toEqual([
      { type: 'goaway', reason: 'lifetime', slotMs: 7 },
    ])
    expect(session).toMatchObject({ state: 'leaving', writes: true, accepts: true })
  })

  test('a replaced session finishes what it has, takes nothing new, then closes with 4005', () => {
    const session = open()
    const effects = session.handle(replacedBy(11, 'a'))
    expect(types(effects)).toEqual(['finish', 'answer close'])
    expect(answered(effects)).toBe(CloseSessionResult.CLOSED)
    expect(session).toMatchObject({ state: 'leaving', writes: true, accepts: false })
    expect(closedWith(session.handle({ type: 'finished' }))).toBe(closeKinds.superseded)
  })

  test('a session newer than the one said to replace it stays', () => {
    const session = open('m')
    expect(answered(session.handle(replacedBy(9, 'z')))).toBe(CloseSessionResult.NEWER)
    expect(answered(session.handle(replacedBy(10, 'a')))).toBe(CloseSessionResult.NEWER)
    expect(session.state).toBe('open')
    expect(answered(session.handle(replacedBy(10, 'z')))).toBe(CloseSessionResult.CLOSED)
  })

  test('an operator closes it with 4501 and his words, at once while it is registering', () => {
    const session = open()
    session.handle({ type: 'disconnect', detail: 'stolen' })
    expect(session.handle({ type: 'finished' })[0]).toEqual({
      type: 'close socket',
      kind: closeKinds.disconnected,
      detail: 'stolen',
    })
    expect(closedWith(new Session('n', rules).handle({ type: 'disconnect', detail: '' }))).toBe(closeKinds.disconnected)
  })
})

describe('registering again', () => {
  const again = (event: SessionEvent) => {
    const session = open()
    session.handle({ type: 'registering again' })
    return { session, effects: session.handle(event) }
  }

  test('takes the new epoch without another welcome, and the end removes all rows', () => {
    const { session, effects } = again({ type: 'registered', epoch: 20, attempts: 1, replaced: [row], inboxUntil: 5 })
    expect(types(effects)).toEqual(['tell replaced', 'mail'])
    expect(session).toMatchObject({ state: 'open', order: { epoch: 20, sessionId: 'm' } })
    expect(unregistered(session.handle({ type: 'socket closed' }))).toEqual([0])
  })

  test('superseded ends it; a failed attempt does not', () => {
    expect(closedWith(again({ type: 'superseded', attempts: 1 }).effects)).toBe(closeKinds.superseded)
    const { session, effects } = again({ type: 'registration failed', attempts: 2 })
    expect(effects).toEqual([])
    expect(session.state).toBe('open')
  })

  test('a session that ends meanwhile removes its rows when the call has ended', () => {
    const session = open()
    session.handle({ type: 'registering again' })
    expect(unregistered(session.handle({ type: 'socket closed' }))).toEqual([])
    expect(unregistered(session.handle({ ...registered, epoch: 20 }))).toEqual([0])
  })
})

test('a session that opens with the hint is told so before it is welcome', () => {
  expect(
    types(new Session('m', rules).handle({ type: 'registered', epoch: 10, attempts: 1, replaced: [], inboxUntil: 5 })),
  ).toEqual(['mail', 'welcome'])
})
