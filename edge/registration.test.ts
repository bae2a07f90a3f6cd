import { describe, expect, test } from 'vitest'
import type { DeepPartial, RegisterRequest, RegisterResponse, RegisterResult } from '../gen/push/internal/v1/registry.ts'
import { PushError } from '../service-kit/errors.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { seededRandom } from '../service-kit/random.ts'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { SteeredClock } from '../service-kit/testing/steered-clock.ts'
import { createEdgeMetrics } from './edge-metrics.ts'
import { createRegistration } from './registration.ts'

const registered = (epoch: number): RegisterResult => ({
  result: { $case: 'registered', value: { epoch, replacedSessions: [], inboxUntil: 0 } },
})
const response = (results: RegisterResult[]): RegisterResponse => ({ results, registryTime: 0 })

function setup(register: (request: DeepPartial<RegisterRequest>) => Promise<RegisterResponse>, ratePerSecond = 100) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const calls: { request: DeepPartial<RegisterRequest>; deadlineMs: number | undefined }[] = []
  const registration = createRegistration({
    registry: {
      register(request, options) {
        calls.push({ request, deadlineMs: options?.deadlineMs })
        return register(request)
      },
    },
    edgeId: 'edge-1',
    edgeAddress: 'here:1',
    ratePerSecond,
    timeoutMs: 5_000,
    callTimeoutMs: 2_000,
    clock,
    random: seededRandom(1),
    log: silentLog,
    metrics: createEdgeMetrics(metrics),
  })
  let count = 0
  const candidate = (more: { deviceId?: string } = {}) => ({
    deviceId: `d${++count}`,
    sessionId: `s${count}`,
    accountId: '',
    protocol: 'push.v1.protobuf',
    connectedTime: 1,
    rowTtlMs: 1_500,
    registerBy: clock.monotonic() + 5_000,
    closed: false,
    ...more,
  })
  return { clock, metrics, calls, registration, candidate }
}

const away = async (): Promise<never> => {
  throw new PushError('REGISTRY_UNAVAILABLE', 'away')
}

test('sessions that come together are registered by one call, with their edge and time to live', async () => {
  const { clock, calls, registration, candidate } = setup(async ({ sessions = [] }) =>
    response(sessions.map((_, index) => registered(index + 1))),
  )
  const results = [registration.register(candidate()), registration.register(candidate())]
  await clock.advance(0)
  expect(await Promise.all(results)).toMatchObject([
    { type: 'registered', epoch: 1, attempts: 1 },
    { type: 'registered', epoch: 2, attempts: 1 },
  ])
  expect(calls).toHaveLength(1)
  expect(calls[0]?.request).toMatchObject({
    edgeId: 'edge-1',
    edgeAddress: 'here:1',
    sessions: [{ deviceId: 'd1', protocol: 'push.v1.protobuf', rowTtl: { seconds: 1, nanos: 500_000_000 }, lastEpoch: 0 }, {}],
  })
})

test('two sessions of one device go out in two calls', async () => {
  const { clock, calls, registration, candidate } = setup(async ({ sessions = [] }) =>
    response(sessions.map(() => registered(1))),
  )
  const results = [registration.register(candidate({ deviceId: 'd' })), registration.register(candidate({ deviceId: 'd' }))]
  await clock.advance(0)
  await Promise.all(results)
  expect(calls.map(({ request }) => request.sessions?.length)).toEqual([1, 1])
})

describe('repeats', () => {
  test('a call that fails is repeated, and the attempts are told', async () => {
    let failures = 2
    const { clock, calls, registration, candidate } = setup(async () => (failures-- > 0 ? away() : response([registered(7)])))
    const result = registration.register(candidate())
    await clock.advance(4_000)
    expect(await result).toMatchObject({ type: 'registered', epoch: 7, attempts: 3 })
    expect(calls).toHaveLength(3)
  })

  test('an item that fails alone is repeated alone', async () => {
    let first = true
    const { clock, calls, registration, candidate } = setup(async ({ sessions = [] }) =>
      response(
        sessions.map(({ deviceId }) => {
          if (deviceId !== 'd1' || !first) return registered(1)
          first = false
          return { result: { $case: 'error', value: { reason: 'REGISTRY_UNAVAILABLE', message: '' } } }
        }),
      ),
    )
    const results = [registration.register(candidate()), registration.register(candidate())]
    await clock.advance(2_000)
    expect(await Promise.all(results)).toMatchObject([{ attempts: 2 }, { attempts: 1 }])
    expect(calls.map(({ request }) => request.sessions?.length)).toEqual([2, 1])
  })

  test('they end with the time of the session, which no call outlives', async () => {
    const { clock, calls, registration, candidate } = setup(away)
    const result = registration.register(candidate())
    await clock.advance(5_000)
    expect(await result).toMatchObject({ type: 'registration failed' })
    expect(clock.pendingTimers).toBe(0)
    expect(calls.length).toBeGreaterThan(3)
    expect(calls[0]?.deadlineMs).toBe(2_000)
    expect(calls.at(-1)?.deadlineMs).toBeLessThan(2_000)
  })

  test('SUPERSEDED is an answer, not a failure', async () => {
    const { clock, registration, candidate } = setup(async () =>
      response([{ result: { $case: 'superseded', value: { by: undefined } } }]),
    )
    const result = registration.register(candidate())
    await clock.advance(0)
    expect(await result).toEqual({ type: 'superseded', attempts: 1 })
  })
})

test('a queued session whose socket has gone is dropped when its turn comes', async () => {
  const blocked = Promise.withResolvers<void>()
  const { clock, metrics, calls, registration, candidate } = setup(async ({ sessions = [] }) => {
    await blocked.promise
    return response(sessions.map(() => registered(1)))
  }, 10_000)
  // All calls that may be under way are; what comes now waits.
  const before: Promise<unknown>[] = []
  for (let call = 0; call < 8; call++) {
    before.push(registration.register(candidate()))
    await clock.advance(0)
  }
  expect(calls).toHaveLength(8)
  const gone = candidate()
  const [dropped, kept] = [registration.register(gone), registration.register(candidate())]
  await clock.advance(0)
  gone.closed = true
  blocked.resolve()
  await clock.advance(0)
  expect(await dropped).toEqual({ type: 'registration failed', attempts: 0 })
  expect(await kept).toMatchObject({ type: 'registered', attempts: 1 })
  expect(calls[8]?.request.sessions).toMatchObject([{ deviceId: 'd10' }])
  expect(await metricValue(metrics, 'push_edge_register_dropped_total')).toBe(1)
  await Promise.all(before)
})

test('a session that ends between two attempts is not attempted again', async () => {
  const { clock, calls, registration, candidate } = setup(away)
  const gone = candidate()
  const result = registration.register(gone)
  await clock.advance(0)
  gone.closed = true
  await clock.advance(5_000)
  expect(await result).toEqual({ type: 'registration failed', attempts: 1 })
  expect(calls).toHaveLength(1)
})

test('more than the rate makes of the time are refused at once', async () => {
  const never = new Promise<RegisterResponse>(() => {})
  const { registration, candidate } = setup(() => never, 2)
  for (let index = 0; index < 10; index++) void registration.register(candidate())
  expect(registration.full).toBe(true)
  expect(await registration.register(candidate())).toEqual({ type: 'registration failed', attempts: 0 })
})
