import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { MessageState, StateReason } from '../../gen/push/v1/message.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { type dispatchBench as bench, dispatchBench, settle } from './testing/dispatch-bench.ts'

const toAccount = { target: { $case: 'accountId' as const, value: 'a' } }
const { ACKNOWLEDGED, STORED, DROPPED, WRITTEN } = MessageState

type Bench = ReturnType<typeof bench>

/** A bench with an account of so many devices, all of them connected to one edge. */
function familyOf(deviceCount: number, limits: Parameters<typeof dispatchBench>[0] = {}): Bench {
  const bench = dispatchBench(limits)
  bench.registry.pageSize = 100
  const devices = Array.from({ length: deviceCount }, (_, n) => `d${n}`)
  bench.accounts.set('a', devices)
  for (const device of devices) bench.connect(device, `e1:${device}`)
  return bench
}

/** Says an outcome of each delivery that reached the edge, in the order of the devices. */
function say({ link }: Bench, ...kinds: OutcomeKind[]): void {
  for (const [index, kind] of kinds.entries()) {
    link('e1').offered[index]?.delivery.onOutcome({
      deliveryId: 0,
      kind,
      final: false,
      writtenTime: 0,
      answeredTime: 0,
      sessionId: 's',
      detail: '',
      result: undefined,
    })
  }
}

describe('to an account', () => {
  test('has one outcome for each device, by device id, and is for those of the account alone', async () => {
    const bench = familyOf(3)
    bench.connect('d2')
    const answer = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await settle()
    expect(bench.link('e1').offered.map(({ accountId }) => accountId)).toEqual(['a', 'a'])
    say(bench, OutcomeKind.ACKNOWLEDGED, OutcomeKind.ACCOUNT_MISMATCH)
    expect(await answer).toMatchObject([
      { deviceId: 'd0', settlement: { state: ACKNOWLEDGED, final: true } },
      { deviceId: 'd1', settlement: { state: DROPPED, reason: StateReason.ACCOUNT_MISMATCH, final: true } },
      { deviceId: 'd2', settlement: { state: STORED, reason: StateReason.OFFLINE, final: false } },
    ])
    expect(bench.receipts.recorded[0]).toMatchObject({ deviceId: '', deviceCount: 3 })
    expect(bench.receipts.recorded.map(({ deviceId }) => deviceId).sort()).toEqual(['', 'd0', 'd1', 'd2'])
    expect(await metricValue(bench.metrics, 'push_router_direct_in_flight')).toBe(0)
  })

  test('without devices: none, and that is recorded before the call returns', async () => {
    const bench = familyOf(0)
    expect(await bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)).toEqual([])
    expect(bench.recorded()).toEqual(['m DROPPED NO_DEVICES'])
    bench.receipts.fails = 1
    const failed = bench.dispatcher.deliverDirectToAccount(bench.queued('m2', 'unused', toAccount), 9_000)
    await expect(failed).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  })

  test('with more devices than a direct call may reach: refused, nothing sent, nothing recorded', async () => {
    const bench = familyOf(4, { directAccountDevicesMax: 3 })
    const failed = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await expect(failed).rejects.toMatchObject({ reason: 'TOO_MANY_TARGETS', metadata: { device_count_max: '3' } })
    bench.registry.pageSize = 2
    const onPages = bench.dispatcher.deliverDirectToAccount(bench.queued('m2', 'unused', toAccount), 9_000)
    await expect(onPages).rejects.toMatchObject({ reason: 'TOO_MANY_TARGETS' })
    expect(bench.link('e1').offered).toEqual([])
    expect(bench.receipts.recorded).toEqual([])
  })

  test('counts once for each device: where there is no room for all of them, nothing is sent', async () => {
    const bench = familyOf(3, { directInFlightMax: 4 })
    bench.connect('other', 'e1:other')
    const others = [0, 1].map((n) => bench.dispatcher.deliverDirect(bench.queued(`o${n}`, 'other'), 9_000))
    const failed = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await expect(failed).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
    expect(bench.link('e1').offered.map(({ messageId }) => messageId)).toEqual(['o0', 'o1'])
    for (const id of ['o0', 'o1']) bench.link('e1').say(id, OutcomeKind.ACKNOWLEDGED)
    await Promise.all(others)
    const answer = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await settle()
    say(bench, ...Array(5).fill(OutcomeKind.ACKNOWLEDGED))
    expect(await answer).toHaveLength(3)
  })

  test('one device whose edge is too busy, or that cannot take it, does not fail the call for the others', async () => {
    const bench = familyOf(2)
    bench.connect('d1', 'e2:d1')
    bench.link('e2').unansweredCount = 1_000_000
    const answer = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await settle()
    say(bench, OutcomeKind.TOO_LARGE)
    expect(await answer).toMatchObject([
      { settlement: { state: DROPPED, reason: StateReason.TOO_LARGE } },
      { settlement: { state: STORED, reason: StateReason.UNREACHABLE } },
    ])
  })

  test('at the limit each has the state so far, and the time that the account took to be read is counted', async () => {
    const bench = familyOf(2)
    bench.registry.down = true
    const answer = bench.dispatcher.deliverDirectToAccount(
      bench.queued('m', 'unused', { ...toAccount, ttl: { seconds: 0, nanos: 0 } }),
      3_000,
    )
    await bench.clock.advance(1_000)
    bench.registry.down = false
    await bench.clock.advance(1_000)
    say(bench, OutcomeKind.WRITTEN)
    let returned = false
    void answer.then(() => {
      returned = true
    })
    await bench.clock.advance(900)
    expect(returned).toBe(false)
    await bench.clock.advance(200)
    expect(await answer).toMatchObject([
      { settlement: { state: WRITTEN, reason: StateReason.WAIT_ENDED, final: false } },
      { settlement: { state: DROPPED, reason: StateReason.UNKNOWN, final: true } },
    ])
  })

  test('the registry away until the limit: the call fails, and nothing is said about any device', async () => {
    const bench = familyOf(2)
    bench.registry.down = true
    const failed = expect(
      bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 3_000),
    ).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    await bench.clock.advance(3_100)
    await failed
    expect(bench.receipts.recorded).toEqual([])
    expect(bench.clock.pendingTimers).toBe(0)
  })

  test('a caller that goes away while the account is read is not waited for, and gets nothing sent', async () => {
    const bench = familyOf(2)
    bench.registry.down = true
    const caller = new AbortController()
    const failed = expect(
      bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 30_000, caller.signal),
    ).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    await bench.clock.advance(1_000)
    caller.abort()
    await failed
    expect(bench.clock.pendingTimers).toBe(0)
  })

  test('a router that shuts down takes none, and waits for those that are under way', async () => {
    const bench = familyOf(1)
    const answer = bench.dispatcher.deliverDirectToAccount(bench.queued('m', 'unused', toAccount), 9_000)
    await settle()
    const settled = bench.dispatcher.settle(5_000)
    const refused = bench.dispatcher.deliverDirectToAccount(bench.queued('m2', 'unused', toAccount), 9_000)
    await expect(refused).rejects.toMatchObject({ reason: 'DRAINING' })
    say(bench, OutcomeKind.ACKNOWLEDGED)
    expect(await answer).toMatchObject([{ settlement: { state: ACKNOWLEDGED } }])
    await settled
    expect(bench.clock.pendingTimers).toBe(0)
  })
})
