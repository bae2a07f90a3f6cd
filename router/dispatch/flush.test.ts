import { describe, expect, test } from 'vitest'
import { OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { InboxEntry } from '../../gen/push/internal/v1/inbox.ts'
import { type FlushInboxResponse, FlushResult, FlushStop } from '../../gen/push/internal/v1/uplink.ts'
import { ConfirmLevel, type Message } from '../../gen/push/v1/message.ts'
import { systemRandom } from '../../service-kit/random.ts'
import type { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { createFlushes, keepForMs } from './flush.ts'
import { dispatchBench, settle } from './testing/dispatch-bench.ts'

const request = { edgeId: 'e1', edgeAddress: 'e1:1', deviceId: 'd', sessionId: 's1' }

function flushBench() {
  const bench = dispatchBench()
  const removed: { messageId: string; acceptTime: number }[] = []
  const deadLetters: string[] = []
  const replaced: InboxEntry[] = []
  let removesFail = 0
  const flushes = createFlushes({
    inbox: {
      store: () => Promise.reject(new Error('a flush never stores')),
      read: async () => ({ entries: bench.inboxes.entries, replaced }),
      async remove({ messageId, acceptTime }) {
        if (removesFail-- > 0) throw new Error('down')
        removed.push({ messageId, acceptTime })
      },
    },
    recorder: bench.recorder,
    links: bench.links,
    leftAccounts: { tell: (accountId, deviceId) => bench.left.push(`${deviceId} has left ${accountId}`) },
    deadLetter: async (entry) => {
      deadLetters.push(entry.message?.messageId ?? '')
    },
    clock: bench.clock,
    random: systemRandom,
    log: bench.log,
    metrics: bench.metrics,
    ackTimeoutMs: 10_000,
    flushesMax: 2,
  })
  return {
    ...bench,
    removed,
    deadLetters,
    replaced,
    /** So many fail from now on. */
    failRemoves(count: number) {
      removesFail = count
    },
    put: (messageId: string, message: Partial<Message> = {}) =>
      bench.inboxes.entries.push({ deviceId: 'd', message: bench.queued(messageId, 'd', message) }),
    /** Starts a flush; `said` has what it has said so far. */
    start() {
      const said: FlushInboxResponse[] = []
      const done = (async () => {
        for await (const response of flushes.flush(request)) said.push(response)
        return said
      })()
      return { said, done }
    },
  }
}

/** In steps, so that what sleeps again and again has its turn each time. */
async function advance(clock: SteeredClock, ms: number): Promise<void> {
  for (let step = 0; step < ms; step += 100) {
    await clock.advance(100)
    await settle()
  }
}

const end = (result: FlushResult, settledCount: number, stop: FlushStop = FlushStop.UNSPECIFIED) => ({
  result,
  stop,
  settledCount,
})

test('an empty inbox: read, then empty', async () => {
  const bench = flushBench()
  expect(await bench.start().done).toEqual([end(FlushResult.READING, 0), end(FlushResult.EMPTY, 0)])
})

test('entries go out in order and are removed one by one, each at its own accept time, when the device has answered', async () => {
  const bench = flushBench()
  bench.put('m1')
  await bench.clock.advance(5)
  bench.put('m2')
  const flush = bench.start()
  await settle()
  expect(flush.said).toEqual([end(FlushResult.READING, 0)])
  expect(bench.link('e1').offered.map((one) => one.messageId)).toEqual(['m1', 'm2'])
  bench.link('e1').say('m2', OutcomeKind.ACKNOWLEDGED)
  await settle()
  expect(bench.removed.map(({ messageId }) => messageId)).toEqual(['m2'])
  bench.link('e1').say('m1', OutcomeKind.NACKED)
  await flush.done
  const times = bench.inboxes.entries.map(({ message }) => message?.acceptTime)
  expect(bench.removed.map(({ acceptTime }) => acceptTime)).toEqual([times[1], times[0]])
  expect(flush.said.at(-1)).toEqual(end(FlushResult.EMPTY, 2))
  expect(bench.recorded()).toEqual(['m2 ACKNOWLEDGED', 'm1 FAILED NACKED'])
})

test('a device that has left the account of an entry is told to the registry', async () => {
  const bench = flushBench()
  bench.put('m', { target: { $case: 'accountId', value: 'a' } })
  const flush = bench.start()
  await settle()
  bench.link('e1').say('m', OutcomeKind.ACCOUNT_MISMATCH)
  await flush.done
  expect(bench.recorded()).toEqual(['m DROPPED ACCOUNT_MISMATCH'])
  expect(bench.left).toEqual(['d has left a'])
})

test('a written entry that is not answered in time stays, and the flush says that it waits', async () => {
  const bench = flushBench()
  bench.put('m')
  const flush = bench.start()
  await settle()
  bench.link('e1').say('m', OutcomeKind.WRITTEN)
  await bench.clock.advance(10_001)
  await flush.done
  expect(flush.said.at(-1)).toEqual(end(FlushResult.WAITING, 0))
  expect(bench.removed).toEqual([])
})

test('WRITTEN is enough where it was wanted, and where the device cannot acknowledge', async () => {
  const bench = flushBench()
  bench.put('m1', { confirm: ConfirmLevel.WRITTEN })
  bench.put('m2')
  const flush = bench.start()
  await settle()
  bench.link('e1').say('m1', OutcomeKind.WRITTEN)
  bench.link('e1').say('m2', OutcomeKind.WRITTEN, { final: true })
  await flush.done
  expect(flush.said.at(-1)).toEqual(end(FlushResult.EMPTY, 2))
})

describe('a flush stops, and the entry stays', () => {
  test.each([
    [OutcomeKind.NOT_CONNECTED, FlushStop.NOT_CONNECTED],
    [OutcomeKind.CLOSED_UNACKNOWLEDGED, FlushStop.NOT_CONNECTED],
    [OutcomeKind.SLOW_CONSUMER, FlushStop.SLOW_CONSUMER],
    [OutcomeKind.RATE_LIMITED, FlushStop.RATE_LIMITED],
  ])('at outcome %s', async (kind, stop) => {
    const bench = flushBench()
    bench.put('m')
    const flush = bench.start()
    await settle()
    bench.link('e1').say('m', kind)
    await flush.done
    expect(flush.said.at(-1)).toEqual(end(FlushResult.STOPPED, 0, stop))
    expect(bench.removed).toEqual([])
  })

  test.each(['unknown', 'unreachable'] as const)('when the stream says %s', async (how) => {
    const bench = flushBench()
    bench.put('m')
    const flush = bench.start()
    await settle()
    bench.link('e1').lose('m', how)
    await flush.done
    expect(flush.said.at(-1)).toEqual(end(FlushResult.STOPPED, 0, FlushStop.ROUTER))
  })

  test('when the receipt fails for long: the entry stays, and the router must be asked again', async () => {
    const bench = flushBench()
    bench.put('m')
    bench.receipts.fails = 1_000
    const flush = bench.start()
    await settle()
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    await advance(bench.clock, keepForMs + 1_000)
    await flush.done
    expect(bench.removed).toEqual([])
    expect(flush.said.at(-1)).toEqual(end(FlushResult.STOPPED, 0, FlushStop.ROUTER))
  })

  test('when the removal fails for long: it is the router that must be asked again', async () => {
    const bench = flushBench()
    bench.put('m')
    bench.failRemoves(1_000)
    const flush = bench.start()
    await settle()
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    await advance(bench.clock, keepForMs + 1_000)
    await flush.done
    expect(flush.said.at(-1)).toEqual(end(FlushResult.STOPPED, 0, FlushStop.ROUTER))
  })

  test('not when receipt or removal fail for a moment: what the device has answered is kept a moment later, and the flush goes on', async () => {
    const bench = flushBench()
    bench.put('m')
    bench.receipts.fails = 2
    bench.failRemoves(1)
    const flush = bench.start()
    await settle()
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.removed).toEqual([])
    await advance(bench.clock, keepForMs - 1_000)
    await flush.done
    expect(bench.removed.map(({ messageId }) => messageId)).toEqual(['m'])
    expect(flush.said.at(-1)).toEqual(end(FlushResult.EMPTY, 1))
  })

  test('and sends nothing after it', async () => {
    const bench = flushBench()
    for (let n = 0; n < 40; n++) bench.put(`m${n}`)
    const flush = bench.start()
    await settle()
    expect(bench.link('e1').offered).toHaveLength(32)
    for (let n = 0; n < 32; n++) bench.link('e1').say(`m${n}`, OutcomeKind.SLOW_CONSUMER)
    await flush.done
    expect(bench.link('e1').offered).toHaveLength(32)
  })
})

test('a message too large for the connection becomes a dead letter and leaves the inbox', async () => {
  const bench = flushBench()
  bench.put('m')
  const flush = bench.start()
  await settle()
  bench.link('e1').say('m', OutcomeKind.TOO_LARGE)
  await flush.done
  expect(bench.deadLetters).toEqual(['m'])
  expect(bench.removed.map(({ messageId }) => messageId)).toEqual(['m'])
  expect(bench.recorded()).toEqual(['m DEAD_LETTERED TOO_LARGE'])
})

test('older versions under a collapse key are removed as replaced', async () => {
  const bench = flushBench()
  bench.replaced.push({ deviceId: 'd', message: bench.queued('old', 'd') })
  await bench.start().done
  expect(bench.removed.map(({ messageId }) => messageId)).toEqual(['old'])
  expect(bench.recorded()).toEqual(['old REPLACED'])
})

test('what was sent before is marked as sent again', async () => {
  const bench = flushBench()
  bench.inboxes.entries.push({ deviceId: 'd', message: { ...bench.queued('m', 'd'), attempt: 1 } })
  bench.start()
  await settle()
  expect(bench.link('e1').last('m').redelivered).toBe(true)
})

test('above the bound a flush is refused, to be tried at another router', async () => {
  const bench = flushBench()
  bench.put('m')
  bench.start()
  bench.start()
  await settle()
  await expect(bench.start().done).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
})
