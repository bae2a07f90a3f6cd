import { describe, expect, test } from 'vitest'
import { InboxReadyResult, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { DeadLetter } from '../../gen/push/internal/v1/queue.ts'
import { ConfirmLevel, MessageState, ReceiptMode, StateReason } from '../../gen/push/v1/message.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { devicesInFlightMax } from './account-flight.ts'
import { dispatchBench, settle } from './testing/dispatch-bench.ts'

const nowOrNever = { ttl: { seconds: 0, nanos: 0 } }

describe('from the queue', () => {
  test('a message is done with the queue when its device has acknowledged it, not when it was written', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    await settle()
    expect(lease.commits).toEqual([])
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([1n])
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('offsets are committed contiguously: a later one that is done first waits for the earlier', async () => {
    const bench = dispatchBench()
    bench.connect('a', 'e1:s1')
    bench.connect('b', 'e1:s2')
    const lease = bench.lease()
    await bench.hand(lease, [
      [4, bench.queued('m1', 'a')],
      [7, bench.queued('m2', 'b')],
    ])
    bench.link('e1').say('m2', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([])
    bench.link('e1').say('m1', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([8n])
  })

  test("one device's messages are handed off in the order of the queue, also when the first must wait", async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    const link = bench.link('e1')
    link.state = 'down'
    await bench.hand(lease, [
      [0, bench.queued('m1', 'd')],
      [1, bench.queued('m2', 'd')],
      [2, bench.queued('m3', 'd')],
    ])
    link.state = 'open'
    await bench.clock.advance(2_000)
    await settle()
    expect(link.offered.map((one) => one.messageId)).toEqual(['m1', 'm2', 'm3'])
  })

  test('one that ends before its turn lets nobody overtake the ones before it', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    const link = bench.link('e1')
    link.state = 'down'
    await bench.hand(lease, [
      [0, bench.queued('m1', 'd')],
      [1, bench.queued('m2', 'd', { ttl: { seconds: 3, nanos: 0 } })],
      [2, bench.queued('m3', 'd')],
      [3, bench.queued('m4', 'd', { ttl: { seconds: 4, nanos: 0 } })],
    ])
    await bench.clock.advance(5_000)
    await settle()
    expect(bench.settled()).toEqual(['m2 EXPIRED', 'm4 EXPIRED'])
    await bench.hand(lease, [[4, bench.queued('m5', 'd')]])
    expect(link.offered).toEqual([])
    link.state = 'open'
    await bench.clock.advance(2_000)
    await settle()
    expect(link.offered.map((one) => one.messageId)).toEqual(['m1', 'm3', 'm5'])
  })

  test('the next message of a device does not wait for the answer to the one before', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [
      [0, bench.queued('m1', 'd')],
      [1, bench.queued('m2', 'd')],
    ])
    expect(bench.link('e1').offered.map((one) => one.messageId)).toEqual(['m1', 'm2'])
  })

  test('a record that is read again while in flight joins its flight, and then counts for the new lease', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const first = bench.lease(0, 1)
    const message = bench.queued('m', 'd')
    await bench.hand(first, [[0, message]])
    bench.endLease(first)
    const second = bench.lease(0, 2)
    await bench.hand(second, [[0, message]])
    expect(bench.link('e1').offered).toHaveLength(1)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(first.commits).toEqual([])
    expect(second.commits).toEqual([1n])
  })

  test('a repeat of a keyed publish further on is dropped, whatever became of the first; without a key every record is its own', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    const keyed = bench.queued('01234567-0123-8123-8123-0123456789ab', 'd')
    const unkeyed = bench.queued('01234567-0123-7123-8123-0123456789ab', 'd')
    await bench.hand(lease, [
      [0, keyed],
      [1, keyed],
      [2, unkeyed],
      [3, unkeyed],
    ])
    expect(bench.link('e1').offered.map((one) => one.messageId)).toEqual([keyed.messageId, unkeyed.messageId, unkeyed.messageId])
    expect(lease.commits).toEqual([])
    bench.link('e1').say(keyed.messageId, OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([2n])
  })

  test('a keyed message that an operator puts back into the queue is no repeat', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    const keyed = bench.queued('01234567-0123-8123-8123-0123456789ab', 'd')
    await bench.hand(lease, [[0, keyed]])
    bench.link('e1').say(keyed.messageId, OutcomeKind.TOO_LARGE)
    await settle()
    expect(bench.deadLetters).toHaveLength(1)
    await bench.hand(lease, [[1, { ...keyed, attempt: 1 }]])
    expect(bench.link('e1').offered.map(({ redelivered }) => redelivered)).toEqual([false, true])
  })

  test('a repeat in a later lease is not dropped: the first may not have been dispatched there', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const keyed = bench.queued('01234567-0123-8123-8123-0123456789ab', 'd')
    const first = bench.lease(0, 1)
    await bench.hand(first, [[0, keyed]])
    bench.endLease(first)
    await bench.hand(bench.lease(0, 2), [[1, keyed]])
    expect(bench.link('e1').offered).toHaveLength(2)
  })

  test('what is settled after the lease has ended commits nothing', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    bench.endLease(lease)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([])
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('a full budget pauses the partitions, drops nothing, and goes on when there is room', async () => {
    const bench = dispatchBench({ inFlightMax: 4 })
    const lease = bench.lease()
    const idle = bench.lease(1)
    for (let n = 0; n < 7; n++) bench.connect(`d${n}`, `e1:s${n}`)
    await bench.hand(
      lease,
      [0, 1, 2, 3, 4, 5, 6].map((n) => [n, bench.queued(`m${n}`, `d${n}`)]),
    )
    expect(lease.paused).toBe(true)
    expect(idle.paused).toBe(true)
    expect(await metricValue(bench.metrics, 'push_router_lane_pauses_total', { lane: 'normal' })).toBe(1)
    expect(bench.link('e1').offered).toHaveLength(4)
    for (let n = 0; n < 7; n++) {
      bench.link('e1').say(`m${n}`, OutcomeKind.ACKNOWLEDGED)
      await settle()
    }
    expect(lease.paused).toBe(false)
    expect(lease.commits.at(-1)).toBe(7n)
    expect(bench.settled()).toHaveLength(7)
  })

  test('a record that cannot be read goes to the dead-letter topic with its origin, and the partition goes on', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.failDeadLetters(2)
    const lease = bench.lease(3)
    await bench.hand(lease, [
      [41, Buffer.from([0xff, 0xff, 0xff])],
      [42, bench.queued('m', 'd')],
    ])
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    // While the dead letter is not durable its offset is held.
    expect(lease.commits).toEqual([])
    await bench.clock.advance(1_000)
    await settle()
    expect(lease.commits.at(-1)).toBe(43n)
    const letter = DeadLetter.decode(bench.deadLetters[0]?.value ?? Buffer.alloc(0))
    expect(letter).toMatchObject({
      originTopic: 'push.normal',
      originPartition: 3,
      originOffset: 41,
      reason: StateReason.UNDECODABLE,
    })
    expect(letter.value).toEqual(Buffer.from([0xff, 0xff, 0xff]))
  })

  test('a record whose fields make no sense is a dead letter too', async () => {
    const bench = dispatchBench()
    const lease = bench.lease()
    const noTarget = bench.queued('m', 'd')
    if (noTarget.message) noTarget.message.target = undefined
    await bench.hand(lease, [
      [0, noTarget],
      [1, { ...bench.queued('m2', 'd'), messageId: '' }],
      [2, { ...bench.queued('m3', 'd'), expireTime: 0 }],
      [3, { ...bench.queued('m4', 'd'), message: undefined }],
    ])
    expect(bench.deadLetters).toHaveLength(4)
    expect(lease.commits.at(-1)).toBe(4n)
  })

  test('a device without a session: stored as offline, and the queue goes on', async () => {
    const bench = dispatchBench()
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    expect(bench.settled()).toEqual(['m STORED OFFLINE'])
    expect(lease.commits).toEqual([1n])
  })

  test('an edge that cannot be reached but is not gone: looked up again until the hold ends, then unreachable, never offline', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.link('e1').state = 'down'
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    await bench.clock.advance(59_000)
    expect(bench.settled()).toEqual([])
    expect(bench.registry.finds.length).toBeGreaterThan(10)
    await bench.clock.advance(2_000)
    await settle()
    expect(bench.settled()).toEqual(['m STORED UNREACHABLE'])
    expect(lease.commits).toEqual([1n])
  })

  test('a device that comes back elsewhere while its message is held gets it', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.link('e1').state = 'down'
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    await bench.clock.advance(5_000)
    bench.connect('d', 'e2:s2', 'e1:s1')
    await bench.clock.advance(2_000)
    await settle()
    bench.link('e2').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('a lapsed edge with an open stream is not gone; one that cannot be reached either is passed over', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1:LAPSED', 'e2:s2')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m1', 'd')]])
    expect(bench.link('e1').last('m1')).toBeDefined()
    bench.link('e1').state = 'down'
    bench.link('e1').lose('m1', 'unknown')
    await bench.clock.advance(2_000)
    await settle()
    expect(bench.link('e2').last('m1').redelivered).toBe(true)
  })

  test('when the three newest rows are of no use and there are more, all rows are read before the device counts as offline', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'g1:s1:LAPSED', 'g2:s2:LAPSED', 'g3:s3:LAPSED', 'e4:s4')
    for (const edge of ['g1', 'g2', 'g3']) bench.link(edge).state = 'gone'
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    expect(bench.registry.finds.at(-1)).toMatchObject({ allRows: true })
    expect(bench.link('e4').last('m')).toBeDefined()
  })

  test('a remembered route whose edge is gone is looked up anew before the device counts as offline', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m1', 'd')]])
    bench.link('e1').say('m1', OutcomeKind.ACKNOWLEDGED)
    bench.connect('d', 'e2:s2', 'e1:s1')
    bench.link('e1').state = 'gone'
    await bench.hand(lease, [[1, bench.queued('m2', 'd')]])
    expect(bench.link('e2').last('m2')).toBeDefined()
  })

  test('after a delivery was lost the next message to the device is looked up anew', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m1', 'd')]])
    bench.connect('d', 'e2:s2', 'e1:s1')
    bench.link('e1').lose('m1', 'unknown')
    await bench.hand(lease, [[1, bench.queued('m2', 'd')]])
    expect(bench.link('e2').last('m2')).toBeDefined()
  })

  test('a ghost row: not connected twice on one route removes the row by its key, and the row below is tried', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:ghost', 'e2:s2')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.NOT_CONNECTED)
    await settle()
    expect(bench.unregistered.map(({ sessionId, epoch }) => ({ sessionId, epoch }))).toEqual([
      { sessionId: 'ghost', epoch: 1_000 },
    ])
    bench.link('e2').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('a device that moves is followed three times, then stored as unreachable', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    for (let move = 1; move <= 3; move++) {
      bench.connect('d', `e${move + 1}:s${move + 1}`)
      bench.link(`e${move}`).say('m', OutcomeKind.NOT_CONNECTED)
      await settle()
    }
    expect(bench.unregistered).toEqual([])
    expect(bench.settled()).toEqual(['m STORED UNREACHABLE'])
  })

  test('a connection that closes after writing: the device is looked up a moment later and gets the message again, marked as such', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    bench.connect('d', 'e2:s2')
    bench.link('e1').say('m', OutcomeKind.CLOSED_UNACKNOWLEDGED)
    await bench.clock.advance(600)
    await settle()
    expect(bench.link('e2').last('m').redelivered).toBe(true)
    bench.link('e2').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.log.withPhrase('message settled')[0]?.facts).toMatchObject({ message_id: 'm', attempt_count: 2 })
  })

  test('time to live 0 is not sent again once it may have been written', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [
      [0, bench.queued('lost', 'd', nowOrNever)],
      [1, bench.queued('closed', 'd', nowOrNever)],
    ])
    bench.link('e1').lose('lost', 'unknown')
    bench.link('e1').say('closed', OutcomeKind.WRITTEN)
    bench.link('e1').say('closed', OutcomeKind.CLOSED_UNACKNOWLEDGED)
    await settle()
    expect(bench.settled()).toEqual(['lost DROPPED UNKNOWN', 'closed DROPPED UNKNOWN'])
  })

  test('written and not answered: stored after the acknowledgement timeout', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    await bench.clock.advance(9_900)
    expect(bench.settled()).toEqual([])
    await bench.clock.advance(200)
    await settle()
    expect(bench.settled()).toEqual(['m STORED ACK_TIMEOUT'])
    expect(lease.commits).toEqual([1n])
  })

  test('a message that expired in the queue is not delivered', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const message = bench.queued('m', 'd', { ttl: { seconds: 5, nanos: 0 } })
    await bench.clock.advance(6_000)
    await bench.hand(bench.lease(), [[0, message]])
    await bench.clock.advance(10)
    expect(bench.settled()).toEqual(['m EXPIRED'])
    expect(bench.link('e1').offered).toEqual([])
  })

  test('a message that is too large for the connection becomes a dead letter with its origin', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease(2)
    await bench.hand(lease, [[9, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.TOO_LARGE, { detail: 'frame of 90,000 bytes' })
    await settle()
    expect(bench.settled()).toEqual(['m DEAD_LETTERED TOO_LARGE'])
    expect(DeadLetter.decode(bench.deadLetters[0]?.value ?? Buffer.alloc(0))).toMatchObject({
      messageId: 'm',
      originPartition: 2,
      originOffset: 9,
      detail: 'frame of 90,000 bytes',
    })
    expect(lease.commits).toEqual([10n])
  })
})

describe('while the registry does not answer', () => {
  test('partitions pause, nothing is dropped or declared offline, and the hold stands still', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.registry.down = true
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    expect(lease.paused).toBe(true)
    await bench.clock.advance(300_000)
    expect(bench.settled()).toEqual([])
    bench.registry.down = false
    await bench.clock.advance(2_000)
    await settle()
    expect(lease.paused).toBe(false)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('the hold goes on where it stood', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.link('e1').state = 'down'
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    await bench.clock.advance(30_000)
    bench.registry.down = true
    await bench.clock.advance(200_000)
    bench.registry.down = false
    await bench.clock.advance(27_000)
    expect(bench.settled()).toEqual([])
    await bench.clock.advance(6_000)
    await settle()
    expect(bench.settled()).toEqual(['m STORED UNREACHABLE'])
  })

  test('the holds of those that wait for their turn stand still as well: nobody of them is stored, nobody overtakes', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.registry.down = true
    const lease = bench.lease()
    await bench.hand(
      lease,
      ['m1', 'm2', 'm3'].map((id, offset) => [offset, bench.queued(id, 'd')] as [number, ReturnType<typeof bench.queued>]),
    )
    await bench.clock.advance(30_000)
    await bench.hand(lease, [[3, bench.queued('m4', 'd')]])
    await bench.clock.advance(270_000)
    bench.registry.down = false
    await bench.clock.advance(2_000)
    await settle()
    expect(bench.settled()).toEqual([])
    expect(bench.link('e1').offered.map((one) => one.messageId)).toEqual(['m1', 'm2', 'm3', 'm4'])
  })

  test('a remembered route says nothing about the registry: consuming stays paused', async () => {
    const bench = dispatchBench()
    bench.connect('known', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m1', 'known')]])
    bench.registry.down = true
    await bench.hand(lease, [[1, bench.queued('m2', 'unknown')]])
    expect(lease.paused).toBe(true)
    await bench.hand(lease, [[2, bench.queued('m3', 'known')]])
    expect(bench.link('e1').last('m3')).toBeDefined()
    expect(lease.paused).toBe(true)
  })

  test('a lease that starts meanwhile is paused as well', async () => {
    const bench = dispatchBench()
    bench.registry.down = true
    await bench.hand(bench.lease(0), [[0, bench.queued('m', 'd')]])
    expect(bench.lease(1).paused).toBe(true)
  })

  test('a direct message that meets it pauses nothing: once it has failed nobody would ask again', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    bench.registry.down = true
    const failed = expect(bench.dispatcher.deliverDirect(bench.queued('m1', 'd'), 1_000)).rejects.toMatchObject({
      reason: 'REGISTRY_UNAVAILABLE',
    })
    await bench.clock.advance(2_000)
    await failed
    bench.registry.down = false
    await bench.clock.advance(60_000)
    expect(lease.paused).toBe(false)
  })

  test("the message's own time goes on", async () => {
    const bench = dispatchBench()
    bench.registry.down = true
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd', { ttl: { seconds: 5, nanos: 0 } })]])
    await bench.clock.advance(6_000)
    await settle()
    expect(bench.settled()).toEqual(['m EXPIRED'])
  })
})

describe('what the device cannot have now', () => {
  test('is stored first, and only then are the sessions read again', async () => {
    const bench = dispatchBench()
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    expect(bench.steps).toEqual(['store', 'read sessions'])
    expect(bench.inboxes.entries.map((entry) => entry.message?.messageId)).toEqual(['m'])
    expect(bench.recorded()).toEqual(['m STORED OFFLINE'])
  })

  test('a session that has come meanwhile is told, and the message is done with the queue only when it has taken the poke', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    const link = bench.link('e1')
    link.pokeAnswers = ['unanswered', 'unanswered', InboxReadyResult.ACCEPTED]
    link.say('m', OutcomeKind.SLOW_CONSUMER)
    await settle()
    expect(lease.commits).toEqual([])
    await bench.clock.advance(2_500)
    await settle()
    expect(link.poked).toEqual(['s1', 's1', 's1'])
    expect(lease.commits).toEqual([1n])
  })

  test('a session that has gone meanwhile: the one that has come instead is told', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').pokeAnswers = [InboxReadyResult.NOT_CONNECTED]
    bench.connect('d', 'e1:s1')
    bench.link('e1').say('m', OutcomeKind.SLOW_CONSUMER)
    bench.connect('d', 'e2:s2', 'e1:s1')
    await settle()
    expect(bench.link('e2').poked).toEqual(['s2'])
    expect(bench.settled()).toEqual(['m STORED SLOW_CONSUMER'])
  })

  test("a ghost's row that refuses the poke is removed, and nobody is asked for ever", async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:ghost')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').pokeAnswers = [InboxReadyResult.NOT_CONNECTED]
    bench.link('e1').say('m', OutcomeKind.SLOW_CONSUMER)
    await settle()
    expect(bench.unregistered.map(({ sessionId }) => sessionId)).toEqual(['ghost'])
    expect(bench.settled()).toEqual(['m STORED SLOW_CONSUMER'])
  })

  test('at the end of the hold a stored message is let go, and its poke stays owed', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    bench.link('e1').pokeAnswers = ['unanswered']
    bench.link('e1').say('m', OutcomeKind.SLOW_CONSUMER)
    await bench.clock.advance(58_000)
    expect(lease.commits).toEqual([])
    await bench.clock.advance(4_000)
    await settle()
    expect(lease.commits).toEqual([1n])
    expect(bench.link('e1').owed).toEqual(['s1'])
  })

  test('a store that refuses loses nothing: the message is kept, partitions pause, and it is stored when the store is back', async () => {
    const bench = dispatchBench()
    bench.inboxes.fails = 5
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    expect(lease.paused).toBe(true)
    expect(bench.settled()).toEqual([])
    await bench.clock.advance(10_000)
    await settle()
    expect(bench.settled()).toEqual(['m STORED OFFLINE'])
    expect(lease.paused).toBe(false)
  })

  test('a full inbox: the message is dropped for that reason; what had to go for it has its final receipt', async () => {
    const bench = dispatchBench()
    bench.inboxes.full = true
    bench.inboxes.evictions = [
      { entry: { deviceId: 'd', message: bench.queued('old', 'd') }, replaced: false },
      { entry: { deviceId: 'd', message: bench.queued('older', 'd') }, replaced: true },
    ]
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    expect(bench.recorded()).toEqual(['old DROPPED INBOX_FULL', 'older REPLACED', 'm DROPPED INBOX_FULL'])
  })

  test('a receipt of an evicted message that cannot be written does not undo the store', async () => {
    const bench = dispatchBench()
    bench.inboxes.evictions = [{ entry: { deviceId: 'd', message: bench.queued('old', 'd') }, replaced: false }]
    bench.receipts.fails = 1
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    expect(bench.inboxes.entries).toHaveLength(1)
    expect(bench.recorded()).toEqual(['m STORED OFFLINE'])
    expect(await metricValue(bench.metrics, 'push_router_evictions_unrecorded_total')).toBe(1)
  })

  test('an answer that comes while storing fails counts, also when the message has expired before it could be stored', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd', { ttl: { seconds: 12, nanos: 0 } })]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    bench.inboxes.fails = 1_000
    await bench.clock.advance(10_500)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED, { answeredTime: 9 })
    await bench.clock.advance(3_000)
    await settle()
    expect(bench.settled()).toEqual(['m EXPIRED'])
    expect(bench.late).toMatchObject([{ messageId: 'm', deviceId: 'd', kind: OutcomeKind.ACKNOWLEDGED }])
  })

  test('an answer to what was handed over and not heard of is awaited while it is being stored', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 1_000)
    await settle()
    bench.link('e1').pokeAnswers = ['unanswered', InboxReadyResult.ACCEPTED]
    const held = Promise.withResolvers<void>()
    bench.inboxes.held = held
    await bench.clock.advance(1_300)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED, { answeredTime: 9 })
    expect(bench.late).toEqual([])
    held.resolve()
    await bench.clock.advance(2_000)
    expect(await answer).toMatchObject({ state: MessageState.STORED })
    expect(bench.late).toMatchObject([{ messageId: 'm', deviceId: 'd', kind: OutcomeKind.ACKNOWLEDGED }])
  })

  test('a look-up that fails when the message has its end already changes nothing: the device is not sent what was told as dropped', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lookUp = Promise.withResolvers<void>()
    const record = Promise.withResolvers<void>()
    bench.registry.held = lookUp.promise
    bench.receipts.held = record.promise
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd', { ttl: { seconds: 0, nanos: 0 } }), 1_000)
    await settle()
    // Its caller waits no longer, and what that is told is being recorded when the look-up fails.
    await bench.clock.advance(1_500)
    await settle()
    bench.registry.down = true
    lookUp.resolve()
    await settle()
    bench.registry.held = undefined
    bench.registry.down = false
    await bench.clock.advance(5_000)
    await settle()
    expect(bench.link('e1').offered).toEqual([])
    record.resolve()
    expect(await answer).toMatchObject({ state: MessageState.DROPPED })
    await bench.clock.advance(5_000)
    expect(bench.link('e1').offered).toEqual([])
  })

  test('an answer that comes while the message is being stored takes it out again, once the store has returned', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    bench.link('e1').pokeAnswers = [...Array(5).fill('unanswered'), InboxReadyResult.ACCEPTED]
    await bench.clock.advance(10_000)
    await settle()
    expect(bench.inboxes.entries).toHaveLength(1)
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED, { answeredTime: 9 })
    expect(bench.late).toEqual([])
    await bench.clock.advance(5_000)
    await settle()
    expect(bench.late).toMatchObject([{ messageId: 'm', deviceId: 'd', kind: OutcomeKind.ACKNOWLEDGED }])
  })

  test('what may have reached the device is stored as such, so that it is marked when it is sent again', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    await bench.clock.advance(10_010)
    await settle()
    expect(bench.inboxes.entries[0]?.message?.attempt).toBe(1)
  })

  test('a link with too much unanswered takes nothing more: the message is stored, a direct one refused', async () => {
    const bench = dispatchBench({ inFlightMax: 1 })
    bench.connect('d', 'e1:s1')
    bench.link('e1').unansweredCount = 64
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd')]])
    expect(bench.settled()).toEqual(['m STORED UNREACHABLE'])
    await expect(bench.dispatcher.deliverDirect(bench.queued('m2', 'd'), 3_000)).rejects.toMatchObject({
      reason: 'RATE_EXCEEDED',
    })
  })
})

describe('to an account', () => {
  const toAccount = { target: { $case: 'accountId' as const, value: 'a' } }

  test('each device has a flight and an outcome of its own; the queue is done when all are', async () => {
    const bench = dispatchBench()
    bench.accounts.set('a', ['d1', 'd2', 'd3', 'd4', 'd5'])
    for (const n of [1, 2, 3, 4]) bench.connect(`d${n}`, `e1:s${n}`)
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'unused', toAccount)]])
    const offered = bench.link('e1').offered
    expect(offered).toHaveLength(4)
    expect(offered.every(({ accountId }) => accountId === 'a')).toBe(true)
    for (const [index, one] of offered.entries()) {
      one.delivery.onOutcome({
        deliveryId: 0,
        kind: index === 3 ? OutcomeKind.ACCOUNT_MISMATCH : OutcomeKind.ACKNOWLEDGED,
        final: false,
        writtenTime: 0,
        answeredTime: 0,
        sessionId: '',
        detail: '',
        result: undefined,
      })
      await settle()
      expect(lease.commits).toEqual(index === 3 ? [1n] : [])
    }
    expect(bench.receipts.recorded.map(({ deviceId }) => deviceId).sort()).toEqual(['', 'd1', 'd2', 'd3', 'd4', 'd5'])
    expect(bench.receipts.recorded[0]).toMatchObject({ deviceId: '', deviceCount: 5 })
    expect(bench.left).toEqual(['d4 has left a'])
    expect(bench.recorded().sort()).toEqual([
      'm ACCEPTED',
      'm ACKNOWLEDGED',
      'm ACKNOWLEDGED',
      'm ACKNOWLEDGED',
      'm DROPPED ACCOUNT_MISMATCH',
      'm STORED OFFLINE',
    ])
  })

  test('an account that no device has logged in to: dropped, and done with the queue only when that is recorded', async () => {
    const bench = dispatchBench()
    bench.receipts.fails = 2
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'unused', toAccount)]])
    expect(lease.commits).toEqual([])
    await bench.clock.advance(5_000)
    await settle()
    expect(lease.commits).toEqual([1n])
    expect(bench.recorded()).toEqual(['m DROPPED NO_DEVICES'])
    expect(bench.receipts.recorded).toMatchObject([{ deviceId: '', deviceCount: 0, principal: 'p' }])
    expect(bench.log.withPhrase('message settled')).toMatchObject([{ facts: { account_id: 'a', reason: 'NO_DEVICES' } }])
  })

  test('without receipts wanted an account without devices leaves none', async () => {
    const bench = dispatchBench()
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'unused', { ...toAccount, receipts: ReceiptMode.NONE })]])
    expect(lease.commits).toEqual([1n])
    expect(bench.receipts.recorded).toEqual([])
  })

  test('how many devices there are is recorded before the first of them, over all pages', async () => {
    const bench = dispatchBench()
    bench.accounts.set('a', ['d1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7'])
    bench.receipts.fails = 3
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'unused', toAccount)]])
    await bench.clock.advance(30_000)
    await settle()
    expect(bench.receipts.recorded[0]).toMatchObject({ deviceId: '', deviceCount: 7 })
    expect(bench.receipts.recorded).toHaveLength(8)
    expect(lease.commits).toEqual([1n])
  })

  test('while the registry is away nothing is decided', async () => {
    const bench = dispatchBench()
    bench.accounts.set('a', ['d1'])
    bench.registry.down = true
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'unused', toAccount)]])
    await bench.clock.advance(5_000)
    expect(lease.commits).toEqual([])
    expect(lease.paused).toBe(true)
    bench.registry.down = false
    await bench.clock.advance(2_000)
    await settle()
    expect(bench.settled()).toEqual(['m STORED OFFLINE'])
    expect(lease.commits).toEqual([1n])
  })

  test("an account's messages are handed off to each device in the order of the queue, also when the first must wait", async () => {
    const bench = dispatchBench()
    bench.accounts.set('a', ['d'])
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    const link = bench.link('e1')
    link.state = 'down'
    await bench.hand(lease, [[0, bench.queued('m1', 'unused', toAccount)]])
    link.state = 'open'
    await bench.hand(lease, [
      [1, bench.queued('m2', 'unused', toAccount)],
      [2, bench.queued('m3', 'unused', toAccount)],
    ])
    await bench.clock.advance(2_000)
    await settle()
    expect(link.offered.map((one) => one.messageId)).toEqual(['m1', 'm2', 'm3'])
  })

  test("a device whose edge does not answer delays none of the account's others, and its messages are held no longer than one is", async () => {
    const bench = dispatchBench()
    bench.accounts.set('a', ['dead', 'd'])
    bench.connect('dead', 'e1:s1')
    bench.connect('d', 'e2:s2')
    const lease = bench.lease()
    bench.link('e1').state = 'down'
    const messages = ['m1', 'm2', 'm3']
    await bench.hand(
      lease,
      messages.map((messageId, offset) => [offset, bench.queued(messageId, 'unused', toAccount)]),
    )
    const link = bench.link('e2')
    expect(link.offered.map((one) => one.messageId)).toEqual(messages)
    for (const messageId of messages) link.say(messageId, OutcomeKind.ACKNOWLEDGED)
    await bench.clock.advance(70_000)
    await settle()
    expect(bench.inboxes.entries.map(({ message, deviceId }) => `${message?.messageId} ${deviceId}`).sort()).toEqual(
      messages.map((messageId) => `${messageId} dead`),
    )
    expect(lease.commits.at(-1)).toBe(3n)
    expect(await metricValue(bench.metrics, 'push_router_stuck', { lane: 'normal' })).toBe(0)
  })

  test('a large account is sent to so many devices at a time', async () => {
    const bench = dispatchBench()
    bench.registry.pageSize = 50
    const devices = Array.from({ length: 200 }, (_, n) => `d${n}`)
    bench.accounts.set('a', devices)
    for (const device of devices) bench.connect(device, `e1:${device}`)
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'unused', toAccount)]])
    expect(bench.link('e1').offered).toHaveLength(devicesInFlightMax)
  })
})

describe('receipts', () => {
  test('are written before the message counts as finished', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.receipts.fails = 3
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd')]])
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([])
    await bench.clock.advance(5_000)
    await settle()
    expect(bench.recorded()).toEqual(['m ACKNOWLEDGED'])
    expect(lease.commits).toEqual([1n])
  })

  test('a publisher who wants none gets none', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    await bench.hand(bench.lease(), [[0, bench.queued('m', 'd', { receipts: ReceiptMode.NONE })]])
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(bench.recorded()).toEqual([])
    expect(bench.settled()).toEqual(['m ACKNOWLEDGED'])
  })

  test('a direct call whose outcome cannot be recorded fails: its publisher must not believe what nobody can confirm later', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    bench.receipts.fails = 1
    const failed = expect(bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 3_000)).rejects.toMatchObject({
      reason: 'REGISTRY_UNAVAILABLE',
    })
    await settle()
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await failed
  })

  test('with confirm RESULT the queue is done at the acknowledgement', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [[0, bench.queued('m', 'd', { confirm: ConfirmLevel.RESULT })]])
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED)
    await settle()
    expect(lease.commits).toEqual([1n])
    expect(bench.receipts.recorded[0]?.resultDeadline).toBeGreaterThan(0)
  })
})

describe('direct', () => {
  test('returns when the device has acknowledged', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 9_000)
    await settle()
    bench.link('e1').say('m', OutcomeKind.WRITTEN, { writtenTime: 5 })
    bench.link('e1').say('m', OutcomeKind.ACKNOWLEDGED, { writtenTime: 5, answeredTime: 6 })
    expect(await answer).toMatchObject({ state: MessageState.ACKNOWLEDGED, edgeId: 'e1', hops: { written: 5, answered: 6 } })
  })

  test('returns when written if that is what was wanted', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd', { confirm: ConfirmLevel.WRITTEN }), 9_000)
    await settle()
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    expect((await answer).state).toBe(MessageState.WRITTEN)
  })

  test('no session: stored as offline at once', async () => {
    const bench = dispatchBench()
    expect(await bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 9_000)).toMatchObject({
      state: MessageState.STORED,
      reason: StateReason.OFFLINE,
    })
  })

  test('time to live 0, written and not answered by the limit: the state so far', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd', nowOrNever), 3_000)
    await settle()
    bench.link('e1').say('m', OutcomeKind.WRITTEN)
    await bench.clock.advance(3_100)
    expect(await answer).toMatchObject({ state: MessageState.WRITTEN, reason: StateReason.WAIT_ENDED })
  })

  test('handed to the edge and not heard of until the limit: stored, as unknown rather than unreachable', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 3_000)
    await settle()
    await bench.clock.advance(3_100)
    expect(await answer).toMatchObject({ state: MessageState.STORED, reason: StateReason.UNKNOWN })
  })

  test('the registry away until the limit: the call fails and nothing is said about the device', async () => {
    const bench = dispatchBench()
    bench.registry.down = true
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 3_000)
    const failed = expect(answer).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
    await bench.clock.advance(3_100)
    await failed
  })

  test('a payload too large for the connection is told to the publisher', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 3_000)
    const failed = expect(answer).rejects.toMatchObject({ reason: 'PAYLOAD_TOO_LARGE' })
    await settle()
    bench.link('e1').say('m', OutcomeKind.TOO_LARGE)
    await failed
  })

  test('above the bound a call is refused at once, and may come back', async () => {
    const bench = dispatchBench({ directInFlightMax: 1 })
    bench.connect('d', 'e1:s1')
    const first = bench.dispatcher.deliverDirect(bench.queued('m1', 'd'), 3_000)
    await expect(bench.dispatcher.deliverDirect(bench.queued('m2', 'd'), 3_000)).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
    await settle()
    bench.link('e1').say('m1', OutcomeKind.ACKNOWLEDGED)
    await first
    const third = bench.dispatcher.deliverDirect(bench.queued('m3', 'd'), 3_000)
    await settle()
    bench.link('e1').say('m3', OutcomeKind.ACKNOWLEDGED)
    expect((await third).state).toBe(MessageState.ACKNOWLEDGED)
  })

  test('a caller that goes away ends the wait, and nothing is held', async () => {
    const bench = dispatchBench()
    bench.connect('d', 'e1:s1')
    const caller = new AbortController()
    const answer = bench.dispatcher.deliverDirect(bench.queued('m', 'd'), 9_000, caller.signal)
    await settle()
    caller.abort()
    expect((await answer).state).toBe(MessageState.DROPPED)
    expect(bench.clock.pendingTimers).toBe(0)
  })
})

describe('stopping', () => {
  test('what is in flight finishes, what had not set out is left to the next owner, new direct calls are refused', async () => {
    const bench = dispatchBench({ inFlightMax: 1 })
    bench.connect('a', 'e1:s1')
    const lease = bench.lease()
    await bench.hand(lease, [
      [0, bench.queued('m1', 'a')],
      [1, bench.queued('m2', 'a')],
    ])
    const settled = bench.dispatcher.settle(10_000)
    await expect(bench.dispatcher.deliverDirect(bench.queued('m3', 'a'), 1_000)).rejects.toMatchObject({ reason: 'DRAINING' })
    bench.link('e1').say('m1', OutcomeKind.ACKNOWLEDGED)
    await settled
    expect(lease.commits).toEqual([1n])
    expect(bench.link('e1').offered.map((one) => one.messageId)).toEqual(['m1'])
  })
})
