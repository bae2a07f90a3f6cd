import { beforeEach, describe, expect, test } from 'vitest'
import { EdgeLeaseState } from '../gen/push/internal/v1/registry.ts'
import { createMetrics, type Metrics } from '../service-kit/metrics.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createServiceLimits } from './service-limits.ts'
import { type DevicePartition, dayOf, type SessionRow, type SessionStore } from './session-store.ts'
import { createSessions, type Sessions } from './sessions.ts'
import { storeUnavailable } from './stores.ts'
import { fullId, registerRequest } from './testing/test-registry.ts'

// Batches, trouble of the store, accounts: on a store that says what a test wants.

let clock: SteeredClock
let metrics: Metrics
let log: ReturnType<typeof recordingLog>
let sessions: Sessions
let rows: SessionRow[]
let written: string[]
let accountDevices: string[]
/** When each device was noted for each account. */
let notes: Map<string, number>
/** Devices for which the store fails, with what. */
let trouble: Map<string, unknown>
let running: number
let runningMost: number
const scope = { signal: new AbortController().signal }

beforeEach(() => {
  clock = new SteeredClock()
  metrics = createMetrics()
  log = recordingLog()
  rows = []
  written = []
  accountDevices = []
  notes = new Map()
  trouble = new Map()
  running = 0
  runningMost = 0
  const step = async <T>(deviceId: string, run: () => T): Promise<T> => {
    runningMost = Math.max(runningMost, ++running)
    await new Promise((resolve) => setImmediate(resolve))
    running -= 1
    if (trouble.has(deviceId)) throw trouble.get(deviceId)
    return run()
  }
  const store: SessionStore = {
    read: (deviceId, limit) =>
      step(deviceId, (): DevicePartition => {
        const found = rows.filter((row) => row.deviceId === deviceId).sort((a, b) => b.epoch - a.epoch)
        return { rows: found.slice(0, limit), more: found.length > limit, inboxUntil: 7 }
      }),
    insert: (row, ttlSeconds) =>
      step(row.deviceId, () => {
        rows.push(row)
        written.push(`row ${row.sessionId.slice(0, 2)} for ${ttlSeconds} s`)
      }),
    delete: (key) => step(key.deviceId, () => void written.push(`delete ${key.deviceId} ${key.epoch}`)),
    writeAccountDevice: (accountId, deviceId, noted) =>
      step(deviceId, () => {
        notes.set(`${accountId}/${deviceId}`, noted)
        written.push(`account ${accountId} ${dayOf(noted)}`)
      }),
    readAccountDevice: (accountId, deviceId) => step(deviceId, () => notes.get(`${accountId}/${deviceId}`)),
    deleteAccountDevice: (accountId, deviceId, noted) =>
      step(deviceId, () => {
        const key = `${accountId}/${deviceId}`
        if ((notes.get(key) ?? 0) <= noted) notes.delete(key)
      }),
    readAccountDevices: (accountId, after, limit) =>
      step(accountId, () => accountDevices.filter((deviceId) => deviceId > after).slice(0, limit)),
    // Of its own name, so that a test can make it fail alone.
    writeTakeover: (deviceId) => step(`${deviceId} takeover`, () => {}),
    countTakeovers: (deviceId) => step(deviceId, () => 1),
    clockMicros: async () => 0,
    close: async () => {},
  }
  const limits = createServiceLimits({ itemsMax: 2048, storeStepsMax: 256, metrics })
  const edgeStateOf = (edgeId: string) => (edgeId.startsWith('gone') ? EdgeLeaseState.LAPSED : EdgeLeaseState.LIVE)
  sessions = createSessions({ store, edgeStateOf, limits, clock, log, metrics })
})

const key = (deviceId: string, epoch = 5) => ({ deviceId, sessionId: fullId('s1'), epoch })

describe('trouble of the store', () => {
  test('with counting a takeover leaves the session registered, and is counted itself', async () => {
    const register = async (sessionId: string) => {
      const { results } = await sessions.register(registerRequest([{ deviceId: 'd1', sessionId }]), scope)
      const result = results[0]?.result
      return result?.$case === 'registered' ? (result.value.recentTakeovers ?? 0) : result?.$case
    }
    expect([await register('s1'), await register('s2')]).toEqual([0, 1])
    trouble.set('d1 takeover', storeUnavailable(new Error('timed out')))
    expect(await register('s3')).toBe(0)
    expect(await metricValue(metrics, 'push_registry_takeovers_uncounted_total')).toBe(1)
    expect(await metricValue(metrics, 'push_registry_takeovers_total')).toBe(1)
  })

  test('fails its own item of a registration, as unknown; the others are registered', async () => {
    trouble.set('d2', storeUnavailable(new Error('the driver says: host 10.1.2.3 timed out')))
    const request = registerRequest(['d1', 'd2', 'd3'].map((deviceId) => ({ deviceId, sessionId: 's1' })))
    const { results } = await sessions.register(request, scope)
    expect(results.map(({ result }) => result?.$case)).toEqual(['registered', 'error', 'registered'])
    expect(results[1]?.result).toMatchObject({ value: { reason: 'REGISTRY_UNAVAILABLE' } })
    expect(JSON.stringify(results)).not.toContain('10.1.2.3')
    expect(await metricValue(metrics, 'push_registry_registrations_total', { result: 'registered' })).toBe(2)
    expect(
      await metricValue(metrics, 'push_registry_item_errors_total', { work: 'registrations', reason: 'REGISTRY_UNAVAILABLE' }),
    ).toBe(1)
  })

  test('is logged with its cause, once a second however many items fail', async () => {
    const deviceIds = Array.from({ length: 10 }, (_, n) => `d${n}`)
    for (const deviceId of deviceIds) trouble.set(deviceId, storeUnavailable(new Error('host 10.1.2.3 timed out')))
    await sessions.lookup({ deviceIds, allRows: false }, scope)
    await clock.advance(1000)
    await sessions.lookup({ deviceIds, allRows: false }, scope)
    const lines = log.withPhrase('items failed')
    expect(lines.map(({ facts }) => facts.item_count)).toEqual([1, 10])
    expect(JSON.stringify(lines)).toContain('host 10.1.2.3 timed out')
  })

  test('never reads as a device without sessions', async () => {
    trouble.set('d2', storeUnavailable(new Error('away')))
    const { devices } = await sessions.lookup({ deviceIds: ['d1', 'd2'], allRows: false }, scope)
    expect(devices).toMatchObject([
      { deviceId: 'd1', error: undefined, inboxUntil: 7 },
      { deviceId: 'd2', error: { reason: 'REGISTRY_UNAVAILABLE' } },
    ])
  })

  test('fails an unregister whole, when all others of it are done', async () => {
    trouble.set('d1', storeUnavailable(new Error('away')))
    const call = sessions.unregister({ sessions: [key('d1'), key('d2'), key('d3')] }, scope)
    await expect(call).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    expect(written).toEqual(['delete d2 5', 'delete d3 5'])
  })

  test('that is a defect of ours is told as such, its words in the log only', async () => {
    trouble.set('d1', new TypeError('value 3 is undefined'))
    const { results } = await sessions.register(registerRequest([{ deviceId: 'd1', sessionId: 's1' }]), scope)
    expect(results[0]?.result).toEqual({
      $case: 'error',
      value: { reason: 'INTERNAL', message: 'the registry made a mistake; its log tells more' },
    })
    expect(log.withPhrase('item failed by a defect')).toHaveLength(1)
  })
})

describe('accounts', () => {
  const today = () => Math.floor(clock.now() / 86_400_000)
  const connected = (sessionId: string, accountId: string) => {
    const request = registerRequest([{ deviceId: 'd1', sessionId, accountId }])
    for (const session of request.sessions) session.connectedTime = clock.nowMicros()
    return sessions.register(request, scope)
  }

  test('are noted before the session, and again only when account or day change', async () => {
    await connected('s1', 'acc-1')
    expect(written).toEqual([`account acc-1 ${today()}`, 'row s1 for 3600 s'])
    await connected('s2', 'acc-1')
    expect(written.slice(2)).toEqual(['row s2 for 3600 s'])
    await connected('s3', 'acc-2')
    expect(written.slice(3)).toEqual([`account acc-2 ${today()}`, 'row s3 for 3600 s'])
    await clock.advance(86_400_000)
    await connected('s4', 'acc-2')
    expect(written.slice(5)).toEqual([`account acc-2 ${today()}`, 'row s4 for 3600 s'])
  })

  test('tell their devices page by page, also when the last page is full', async () => {
    accountDevices = ['d1', 'd2', 'd3', 'd4']
    const page = (pageToken: string) => sessions.lookupAccount({ accountId: 'acc-1', pageSize: 2, pageToken }, scope)
    const first = await page('')
    expect(first.deviceIds).toEqual(['d1', 'd2'])
    expect(await page(first.nextPageToken)).toEqual({ deviceIds: ['d3', 'd4'], nextPageToken: '' })
    accountDevices = Array.from({ length: 101 }, (_, n) => `e${100 + n}`)
    const whole = await sessions.lookupAccount({ accountId: 'acc-1', pageSize: 0, pageToken: '' }, scope)
    expect(whole.deviceIds).toHaveLength(100)
    expect(whole.nextPageToken).not.toBe('')
  })

  test('that cannot be read are trouble, never an account without devices', async () => {
    trouble.set('acc-1', storeUnavailable(new Error('away')))
    const call = sessions.lookupAccount({ accountId: 'acc-1', pageSize: 0, pageToken: '' }, scope)
    await expect(call).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  })

  test('are not noted for a session without one', async () => {
    await connected('s1', '')
    expect(written).toEqual(['row s1 for 3600 s'])
  })
})

describe('batches', () => {
  test('a row lives for whole seconds, never shorter than asked', async () => {
    const request = registerRequest([{ deviceId: 'd1', sessionId: 's1' }])
    for (const session of request.sessions) session.rowTtl = { seconds: 10, nanos: 1 }
    await sessions.register(request, scope)
    expect(written).toEqual(['row s1 for 11 s'])
  })

  test('of a thousand devices are answered in order, with few steps at once', async () => {
    const deviceIds = Array.from({ length: 1000 }, (_, n) => `d${n}`)
    await sessions.register(registerRequest(deviceIds.map((deviceId) => ({ deviceId, sessionId: 's1' }))), scope)
    const { devices } = await sessions.lookup({ deviceIds, allRows: false }, scope)
    expect(devices.map(({ deviceId, routes }) => `${deviceId} ${routes.length}`)).toEqual(deviceIds.map((id) => `${id} 1`))
    expect(runningMost).toBe(64)
  })

  test('that do not fit are refused whole', async () => {
    const full = sessions.unregister({ sessions: Array.from({ length: 1000 }, (_, n) => key(`d${n}`)) }, scope)
    const more = sessions.unregister({ sessions: Array.from({ length: 1000 }, (_, n) => key(`e${n}`)) }, scope)
    const lookup = sessions.lookup({ deviceIds: ['d1'], allRows: false }, scope)
    await expect(lookup).rejects.toMatchObject({ reason: 'RATE_EXCEEDED' })
    await Promise.all([full, more])
    await sessions.lookup({ deviceIds: ['d1'], allRows: false }, scope)
  })

  test('a look-up tells what is known of each edge, all rows when asked for, and counts devices with too many', async () => {
    await sessions.register(registerRequest([{ deviceId: 'd1', sessionId: 's1', edgeId: 'gone-12345678' }]), scope)
    for (let n = 2; n <= 1001; n += 1) {
      rows.push({ ...(rows[0] as SessionRow), epoch: n, sessionId: fullId(`x${n}`), edgeId: 'edge-b-12345678' })
    }
    const few = await sessions.lookup({ deviceIds: ['d1'], allRows: false }, scope)
    expect(few.devices[0]).toMatchObject({ more: true, routes: { length: 3 } })
    expect(few.devices[0]?.routes.map(({ edgeState }) => edgeState)).toEqual([
      EdgeLeaseState.LAPSED,
      EdgeLeaseState.LIVE,
      EdgeLeaseState.LIVE,
    ])
    const all = await sessions.lookup({ deviceIds: ['d1'], allRows: true }, scope)
    expect(all.devices[0]).toMatchObject({ more: true, routes: { length: 1000 } })
    expect(await metricValue(metrics, 'push_registry_overfull_devices_total')).toBe(1)
  })
})
