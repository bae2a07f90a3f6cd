import { beforeEach, describe, expect, test } from 'vitest'
import { shiftedClock } from '../service-kit/clock.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { inboxSuite } from './inbox.suite.ts'
import { readBytesMax } from './inbox.ts'
import { type InboxStore, inboxReadLimitMax } from './inbox-store.ts'
import { createServiceLimits } from './service-limits.ts'
import { openSqliteDatabase } from './sqlite/database.ts'
import { createSqliteInboxStore } from './sqlite/inbox-store.ts'
import { createSqliteSessionStore } from './sqlite/session-store.ts'
import { storeUnavailable } from './stores.ts'
import { outcomesOf, queued, startMs, testInbox } from './testing/test-inbox.ts'

function openStores(clock: SteeredClock) {
  const database = openSqliteDatabase(':memory:', createMetrics())
  return {
    inbox: createSqliteInboxStore(database, clock),
    sessions: createSqliteSessionStore(database, clock),
    close: () => database.close(),
  }
}

inboxSuite('SQLite', async () => openStores(new SteeredClock(startMs)))

let clock: SteeredClock
beforeEach(() => {
  clock = new SteeredClock(startMs)
})
const never = new AbortController().signal

describe('clocks that differ', () => {
  test('a registry whose clock is as far ahead as one may be ends no message early for the others', async () => {
    const stores = openStores(clock)
    const ahead = testInbox(stores.inbox, shiftedClock(clock, 9_999))
    const right = testInbox(stores.inbox, clock)
    await ahead.store('d1', { id: 'm1', expiresMs: 10_000 })
    expect((await ahead.read('d1')).entries).toEqual(['m1'])
    await clock.advance(9_999)
    expect((await ahead.read('d1')).entries).toEqual([])
    expect((await right.read('d1')).entries).toEqual(['m1'])
    expect((await stores.sessions.read('d1', 1)).inboxUntil).toBe((startMs + 10_000) * 1000)
    await stores.close()
  })

  test('nothing stays in the store for longer than that', async () => {
    const stores = openStores(clock)
    await testInbox(stores.inbox, clock).store('d1', { id: 'm1', expiresMs: 10_000 })
    await clock.advance(20_999)
    expect((await stores.inbox.list('d1')).rows).toHaveLength(1)
    await clock.advance(1)
    expect((await stores.inbox.list('d1')).rows).toEqual([])
    expect((await stores.sessions.read('d1', 1)).inboxUntil).toBe(0)
    await stores.close()
  })

  test('a row whose turn comes after its message has expired still gets an end', async () => {
    const ttls: number[] = []
    const store = { ...openStores(clock).inbox }
    const { insert } = store
    store.insert = async (deviceId, row, ttlSeconds) => {
      ttls.push(ttlSeconds)
      await clock.advance(3_600_000)
      return insert(deviceId, row, ttlSeconds)
    }
    store.writeHint = async (_deviceId, _until, ttlSeconds) => void ttls.push(ttlSeconds)
    expect(outcomesOf(await testInbox(store, clock).store('d1', { id: 'm1', expiresMs: 1_500 }))).toEqual(['stored'])
    expect(ttls).toEqual([13, 1])
  })
})

describe('counting', () => {
  const counted = (store: InboxStore, phase: number) => {
    let counts = 0
    const list: InboxStore['list'] = (deviceId) => {
      counts += 1
      return store.list(deviceId)
    }
    const random = { next: () => phase, bytes: () => new Uint8Array() }
    const inbox = testInbox({ ...store, list }, clock, { random, countedDevicesMax: 2 })
    return { inbox, counts: () => counts }
  }

  test('is done at every tenth store to a device', async () => {
    const { inbox, counts } = counted(openStores(clock).inbox, 0.95)
    const seen: number[] = []
    for (let n = 1; n <= 30; n += 1) {
      await inbox.store('d1', { id: `m${n}` })
      if (counts() > seen.length) seen.push(n)
    }
    expect(seen).toEqual([10, 20, 30])
  })

  test('is done more often when there is little room, so that one registry keeps the bound', async () => {
    const { inbox } = counted(openStores(clock).inbox, 0)
    const results: string[] = []
    for (let n = 0; n < 110; n += 1) results.push(...outcomesOf(await inbox.store('d1', { id: `m${n}` })))
    expect(results.filter((result) => result === 'stored')).toHaveLength(100)
    expect(results.slice(100)).toEqual(Array(10).fill('full'))
    expect(await inbox.count('d1')).toBe(100)
  })

  test('is done when bytes run out, however few the messages', async () => {
    const { inbox } = counted(openStores(clock).inbox, 0.95)
    const results: string[] = []
    for (let n = 0; n < 10; n += 1) results.push(...outcomesOf(await inbox.store('d1', { id: `m${n}`, payloadBytes: 65_536 })))
    expect(results).toEqual([...Array(7).fill('stored'), ...Array(3).fill('full')])
  })

  test('begins anywhere for a device that was forgotten', async () => {
    const { inbox, counts } = counted(openStores(clock).inbox, 0)
    for (const device of ['d1', 'd2', 'd3']) await inbox.store(device, { id: 'm1' })
    expect(counts()).toBe(3)
    for (const device of ['d2', 'd3']) await inbox.store(device, { id: 'm2' })
    expect(counts()).toBe(3)
    await inbox.store('d1', { id: 'm2' })
    expect(counts()).toBe(4)
    expect(await metricValue(inbox.metrics, 'push_registry_inbox_forgotten_devices_total')).toBe(2)
    expect(await metricValue(inbox.metrics, 'push_registry_inbox_counted_devices')).toBe(2)
  })
})

describe('trouble', () => {
  test('of the store fails its own entry of a batch, as unknown; the others are stored, in order', async () => {
    const store = { ...openStores(clock).inbox }
    const { insert } = store
    store.insert = (deviceId, row, ttlSeconds) =>
      deviceId === 'd2' ? Promise.reject(storeUnavailable(new Error('timed out at 10.1.2.3'))) : insert(deviceId, row, ttlSeconds)
    const { inbox, metrics } = testInbox(store, clock)
    const entries = ['d1', 'd2', 'd1', 'd3'].map((deviceId, n) => ({ deviceId, message: queued({ id: `m${n}` }, deviceId) }))
    const { results } = await inbox.store({ entries }, { signal: never })
    expect(outcomesOf(results)).toEqual(['stored', 'error', 'stored', 'stored'])
    expect(results[1]?.result).toMatchObject({ value: { reason: 'REGISTRY_UNAVAILABLE' } })
    expect(JSON.stringify(results)).not.toContain('10.1.2.3')
    expect(await metricValue(metrics, 'push_registry_inbox_stores_total', { result: 'stored' })).toBe(3)
    expect(await metricValue(metrics, 'push_registry_item_errors_total', { work: 'inbox', reason: 'REGISTRY_UNAVAILABLE' })).toBe(
      1,
    )
  })

  test('of the store never reads as an empty inbox, and removes what it can before the call fails', async () => {
    const store = { ...openStores(clock).inbox }
    const inbox = testInbox(store, clock)
    await inbox.store('d1', { id: 'm1' }, { id: 'm2' }, { id: 'm3' })
    const away = () => Promise.reject(storeUnavailable(new Error('away')))
    const { list, read, delete: remove } = store
    store.list = away
    store.read = away
    store.delete = (key) => (key.messageId === 'm1' ? away() : remove(key))
    await expect(inbox.read('d1')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    await expect(inbox.count('d1')).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    const entries = ['m1', 'm2', 'm3'].map((messageId) => ({ deviceId: 'd1', messageId, acceptTime: startMs * 1000 }))
    await expect(inbox.inbox.remove({ entries }, { signal: never })).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    Object.assign(store, { list, read })
    expect((await inbox.read('d1')).entries).toEqual(['m1'])
  })

  test('no step is begun for a caller who has gone', async () => {
    const store = openStores(clock).inbox
    const { inbox } = testInbox(store, clock)
    const gone = AbortSignal.abort(new Error('gone'))
    const entries = [{ deviceId: 'd1', message: queued({ id: 'm1' }, 'd1') }]
    await expect(inbox.store({ entries }, { signal: gone })).rejects.toThrow('gone')
    expect((await store.list('d1')).rows).toEqual([])
  })

  test('bytes that are no message are left out, and told to the operator', async () => {
    const stores = openStores(clock)
    const log = recordingLog()
    const inbox = testInbox(stores.inbox, clock, { log })
    await inbox.store('d1', { id: 'm1' })
    const row = (await stores.inbox.read('d1')).rows[0]
    if (row === undefined) throw new Error('nothing is stored')
    await stores.inbox.insert('d1', { ...row, messageId: 'bad', message: Buffer.from([0xff, 0xff]) }, 60)
    expect((await inbox.read('d1')).entries).toEqual(['m1'])
    expect(log.withPhrase('inbox entry is no message; left out')).toMatchObject([
      { facts: { device_id: 'd1', message_id: 'bad' } },
    ])
  })

  test('an inbox that several registries have filled too far is told in part, the first first', async () => {
    const store = openStores(clock).inbox
    const { store: put, read, metrics } = testInbox(store, clock, { bounds: { messagesMax: 500, bytesMax: 2 ** 30 } })
    const messages = Array.from({ length: 60 }, (_, n) => ({ id: `m${100 + n}`, payloadBytes: 65_000 }))
    for (let at = 0; at < messages.length; at += 10) await put('d1', ...messages.slice(at, at + 10))
    const { entries } = await read('d1')
    expect(entries).toEqual(messages.slice(0, entries.length).map(({ id }) => id))
    expect(entries.length).toBe(Math.floor(readBytesMax / 65_150))
    expect(await metricValue(metrics, 'push_registry_inbox_overfull_total')).toBe(1)
  })

  test('more rows than are read at most are told in part and counted', async () => {
    const stores = openStores(clock)
    const inbox = testInbox(stores.inbox, clock)
    await inbox.store('d1', { id: 'm1' })
    const row = (await stores.inbox.read('d1')).rows[0]
    if (row === undefined) throw new Error('nothing is stored')
    const many = Array.from({ length: inboxReadLimitMax }, (_, n) => ({ ...row, messageId: `x${n}` }))
    await Promise.all(many.map((one) => stores.inbox.insert('d1', one, 60)))
    expect((await inbox.read('d1')).entries).toHaveLength(inboxReadLimitMax)
    expect(await metricValue(inbox.metrics, 'push_registry_inbox_overfull_total')).toBe(1)
  })

  test('a registry that is too full refuses whole calls, counts earlier than the rest', async () => {
    const metrics = createMetrics()
    const limits = createServiceLimits({ itemsMax: 2048, storeStepsMax: 256, metrics })
    const stores = openStores(clock)
    const inbox = testInbox(stores.inbox, clock, { limits })
    const occupy = (items: number) => {
      const end = Promise.withResolvers<void>()
      return { done: limits.leases.admit(items, () => end.promise), end: end.resolve }
    }
    const some = occupy(1300)
    await expect(inbox.count('d1')).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    expect(outcomesOf(await inbox.store('d1', { id: 'm1' }))).toEqual(['stored'])
    const more = occupy(300)
    await expect(inbox.store('d1', { id: 'm2' })).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    await expect(inbox.read('d1')).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    await expect(inbox.remove('d1', 'm1')).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    for (const { done, end } of [some, more]) {
      end()
      await done
    }
    expect((await inbox.read('d1')).entries).toEqual(['m1'])
  })
})
