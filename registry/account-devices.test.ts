import { beforeEach, expect, test } from 'vitest'
import { EdgeLeaseState } from '../gen/push/internal/v1/registry.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { type AccountDevices, createAccountDevices } from './account-devices.ts'
import { createServiceLimits } from './service-limits.ts'
import type { SessionStore } from './session-store.ts'
import { createSessions, type Sessions } from './sessions.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteSessionStore } from './sqlite/session-store.ts'
import { storeUnavailable } from './stores.ts'
import { fullId, registerRequest } from './testing/test-registry.ts'

const scope = { signal: new AbortController().signal }
let clock: SteeredClock
let store: SessionStore
let sessions: Sessions
let accountDevices: AccountDevices
/** What happens before the next step of a name is carried out; once each. */
let before: Map<string, () => Promise<unknown>>

beforeEach(() => {
  clock = new SteeredClock()
  store = createSqliteSessionStore(openSqliteDatabase(':memory:', createMetrics()), clock)
  before = new Map()
  const stepped = <Args extends unknown[], R>(name: string, run: (...args: Args) => Promise<R>) => {
    return async (...args: Args): Promise<R> => {
      const first = before.get(name)
      before.delete(name)
      await first?.()
      return run(...args)
    }
  }
  const metrics = createMetrics()
  const limits = createServiceLimits({ itemsMax: 4_096, storeStepsMax: 64, metrics })
  const parts = { limits, clock, log: silentLog, metrics }
  sessions = createSessions({
    ...parts,
    store: { ...store, insert: stepped('insert', store.insert) },
    edgeStateOf: () => EdgeLeaseState.LIVE,
  })
  accountDevices = createAccountDevices({
    ...parts,
    store: { ...store, read: stepped('read', store.read), deleteAccountDevice: stepped('delete', store.deleteAccountDevice) },
  })
})

const register = (sessionId: string, accountId: string) => {
  const request = registerRequest([{ deviceId: 'd', sessionId, accountId }])
  for (const session of request.sessions) session.connectedTime = clock.nowMicros()
  return sessions.register(request, scope)
}
const unregister = (sessionId: string) =>
  sessions.unregister({ sessions: [{ deviceId: 'd', sessionId: fullId(sessionId), epoch: 0 }] }, scope)
const forget = (accountId = 'x', deviceId = 'd') => accountDevices.forget({ accountDevices: [{ accountId, deviceId }] }, scope)
const devicesOf = (accountId = 'x') => store.readAccountDevices(accountId, '', 10)

/** The device was in account x, and is in y now, for so long that nobody doubts it. */
async function moved(): Promise<void> {
  await register('s1', 'x')
  await clock.advance(1_800_000)
  await unregister('s1')
  await register('s2', 'y')
}

test('a device that belongs to another account by now is forgotten by the one that it has left, and by no other', async () => {
  await moved()
  expect(await forget()).toBe(1)
  expect(await devicesOf()).toEqual([])
  expect(await devicesOf('y')).toEqual(['d'])
  expect(await forget()).toBe(0)
})

test('so is one whose session has no account, and one that is not connected at all', async () => {
  await register('s1', 'x')
  await clock.advance(1_800_000)
  await unregister('s1')
  expect(await forget()).toBe(1)
  await register('s2', '')
  expect(await devicesOf()).toEqual([])
})

test('a device with a session of the account stays, also when its newest is of another', async () => {
  await register('s1', 'x')
  await clock.advance(1_800_000)
  await register('s2', 'y')
  expect(await forget()).toBe(0)
  expect(await devicesOf()).toEqual(['d'])
})

test('a device that was listed within the last minute stays: another registry with a slower clock may list it again', async () => {
  await register('s1', 'x')
  await unregister('s1')
  await clock.advance(59_999)
  expect(await forget()).toBe(0)
  await clock.advance(2)
  expect(await forget()).toBe(1)
})

test('a device that comes back to the account is listed again, the same day too', async () => {
  await moved()
  await forget()
  await unregister('s2')
  await register('s3', 'x')
  expect(await devicesOf()).toEqual(['d'])
})

test('a device that comes back while it is being forgotten stays listed, whichever step it comes before', async () => {
  for (const step of ['read', 'delete']) {
    await moved()
    await unregister('s2')
    before.set(step, () => register('s3', 'x'))
    await forget()
    expect(await devicesOf()).toEqual(['d'])
    await unregister('s3')
    await clock.advance(1_800_000)
  }
})

test('a registration whose note was left out for a row that goes meanwhile makes up for it', async () => {
  await register('s1', 'x')
  await clock.advance(1_800_000)
  // It has read the row of s1, and not written its own, when s1 goes and the device is forgotten.
  before.set('insert', async () => {
    await unregister('s1')
    expect(await forget()).toBe(1)
  })
  await register('s3', 'x')
  expect(await devicesOf()).toEqual(['d'])
})

test('when it cannot be read whether the device has come back, it counts as having done so', async () => {
  await moved()
  before.set('delete', async () => {
    before.set('read', () => Promise.reject(storeUnavailable(new Error('away'))))
  })
  expect(await forget()).toBe(0)
  expect(await devicesOf()).toEqual(['d'])
})

test('a store that does not answer fails the call; nothing is forgotten', async () => {
  await moved()
  before.set('read', () => Promise.reject(storeUnavailable(new Error('away'))))
  await expect(forget()).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  expect(await devicesOf()).toEqual(['d'])
})

test('names that cannot be, and too many of them, are refused whole', async () => {
  await expect(forget('', 'd')).rejects.toMatchObject({ reason: 'INVALID_REQUEST' })
  await expect(forget('x', 'a b')).rejects.toMatchObject({ reason: 'INVALID_REQUEST' })
  const many = Array.from({ length: 1_001 }, (_, n) => ({ accountId: 'x', deviceId: `d${n}` }))
  await expect(accountDevices.forget({ accountDevices: many }, scope)).rejects.toMatchObject({ reason: 'INVALID_REQUEST' })
})
