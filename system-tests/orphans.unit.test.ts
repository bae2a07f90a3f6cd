import { expect, test } from 'vitest'
import { orphanProblem } from './orphans.ts'
import type { SessionSpan } from './story.ts'

const ended: SessionSpan = { sessionId: 'old', openedAt: 0, endedAt: 10 }
const live: SessionSpan = { sessionId: 'live', openedAt: 11, endedAt: undefined }
const log = (...sessions: SessionSpan[]) => ({ deviceId: 'd', processes: [{ sessions, handled: [] }] })

test('a device is known as it is: by its live session, or not at all', () => {
  expect(orphanProblem(log(ended, live), ['live'], 'live')).toBeUndefined()
  // A row below the newest harms nobody.
  expect(orphanProblem(log(ended, live), ['live', 'old'], 'live')).toBeUndefined()
  expect(orphanProblem(log(ended), [], undefined)).toBeUndefined()
  // The edge has died with it.
  expect(orphanProblem(log(ended), ['old'], undefined)).toBeUndefined()
})

test('found are a row of an ended session that stays the newest, a wrong name, a session too many, and one who only seems to be there', () => {
  expect(orphanProblem(log(ended, live), ['old', 'live'], 'live')).toBe('d has session live, but its newest row is that of old')
  expect(orphanProblem(log(live), [], 'live')).toContain('its newest row is that of undefined')
  expect(orphanProblem(log(ended, live), ['live', 'old'], 'old')).toContain('but counts as having old')
  expect(orphanProblem(log(live), ['live'], undefined)).toContain('but counts as having none')
  expect(orphanProblem(log({ ...live, sessionId: 'other' }, live), ['live'], 'live')).toContain(
    'has the open sessions other, live',
  )
  expect(orphanProblem(log(ended), ['old'], 'old')).toBe('d is away, but counts as having session old')
})
