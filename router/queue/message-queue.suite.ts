import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Lane, MessageQueue, StoredDeadLetter } from './message-queue.ts'
import { bytesOf, RecordTaker, textOf } from './testing/record-taker.ts'

/** One storage, on which a queue can be opened again and again, as by one process after the other. */
export interface QueueStand {
  /** Resolves when the queue is ready. */
  open(bounds?: { backlogRecordsMax?: number }): Promise<MessageQueue>
  /** How many commits the queue that was opened last has written in a lane. */
  commitCount(lane: Lane): Promise<number>
  /** All dead letters, oldest first. */
  deadLetters(): Promise<Array<{ key: string; text: string }>>
  close(): Promise<void>
}

/** What every queue keeps. */
export function messageQueueSuite(name: string, newStand: () => Promise<QueueStand>): void {
  describe(name, () => {
    let stand: QueueStand
    let opened: MessageQueue[]

    beforeEach(async () => {
      stand = await newStand()
      opened = []
    })

    afterEach(async () => {
      for (const queue of opened) await queue.close()
      await stand.close()
    })

    const open = async (bounds?: { backlogRecordsMax?: number }) => {
      const queue = await stand.open(bounds)
      opened.push(queue)
      return queue
    }

    const put = (queue: MessageQueue, text: string, lane: Lane = 'normal', key = 'device-1') =>
      queue.publish({ lane, key, value: bytesOf(text) })

    const putAll = (queue: MessageQueue, texts: readonly string[], lane?: Lane, key?: string) =>
      Promise.all(texts.map((text) => put(queue, text, lane, key)))

    test('a record comes out as it went in, on its lane', async () => {
      const queue = await open()
      const before = Date.now()
      await queue.publish({ lane: 'high', key: 'tv-ä', value: Uint8Array.from([0, 255, 1]) })
      const taker = new RecordTaker()
      await queue.consume(taker)
      await taker.count(1)
      const [record] = taker.records
      expect(record).toMatchObject({ lane: 'high', key: 'tv-ä', partition: taker.leaseOf[0]?.partition })
      expect([...(record?.value ?? [])]).toEqual([0, 255, 1])
      expect(taker.leaseOf[0]?.lane).toBe('high')
      expect(record?.timestampMs).toBeGreaterThanOrEqual(before - 1)
      expect(record?.timestampMs).toBeLessThanOrEqual(Date.now() + 1)
    })

    test('records of one key keep the order of the calls, on every lane', async () => {
      const queue = await open()
      const taker = new RecordTaker()
      await queue.consume(taker)
      const wanted = new Map<string, string[]>()
      const sent: Promise<void>[] = []
      for (let index = 0; index < 400; index++) {
        const lane = (['high', 'normal', 'low'] as const)[index % 3] ?? 'low'
        const key = `device-${index % 7}`
        wanted.set(`${lane}/${key}`, [...(wanted.get(`${lane}/${key}`) ?? []), `${index}`])
        sent.push(put(queue, `${index}`, lane, key))
        // Some in the same tick, some batches under way while others wait.
        if (index % 50 === 0) await sent.at(-1)
      }
      await Promise.all(sent)
      await taker.count(400)
      const got = new Map<string, string[]>()
      for (const record of taker.records) {
        const place = `${record.lane}/${record.key}`
        got.set(place, [...(got.get(place) ?? []), textOf(record)])
      }
      expect(got).toEqual(wanted)
    })

    test('offsets rise within a lease, and none comes twice', async () => {
      const queue = await open()
      const taker = new RecordTaker()
      await queue.consume(taker)
      for (let round = 0; round < 5; round++) await putAll(queue, [`${round}a`, `${round}b`, `${round}c`])
      await taker.count(15)
      await delay(600)
      expect(taker.records).toHaveLength(15)
      const offsets = taker.records.map((record) => record.offset)
      expect(offsets).toEqual([...new Set(offsets)].sort((a, b) => (a < b ? -1 : 1)))
    })

    test('what publish has answered is there after the queue was opened again', async () => {
      const first = await open()
      await putAll(first, ['a', 'b', 'c'])
      await first.close()
      const second = await open()
      const taker = new RecordTaker()
      await second.consume(taker)
      await taker.count(3)
      expect(taker.texts).toEqual(['a', 'b', 'c'])
    })

    test('after a restart the records from the committed position on come again, and only those', async () => {
      const first = await open()
      await putAll(first, ['a', 'b', 'c', 'd', 'e'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(5)
      before.leaseWith('a').commitBelow(before.offsetOf('c') + 1n)
      await first.stopConsuming(async () => {})
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(2)
      await put(second, 'f')
      await after.count(3)
      expect(after.texts).toEqual(['d', 'e', 'f'])
    })

    test('a commit is written soon, not only when consuming stops', async () => {
      const first = await open()
      await putAll(first, ['a', 'b'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(2)
      before.leaseWith('a').commitBelow(before.offsetOf('a') + 1n)
      await expect.poll(() => stand.commitCount('normal')).toBeGreaterThan(0)
      // Without settling: nothing is committed any more.
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(1)
      expect(after.texts[0]).toBe('b')
    })

    test('a lower commit after a higher one changes nothing', async () => {
      const first = await open()
      await putAll(first, ['a', 'b', 'c', 'd'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(4)
      const lease = before.leaseWith('a')
      lease.commitBelow(before.offsetOf('d'))
      await expect.poll(() => stand.commitCount('normal')).toBeGreaterThan(0)
      lease.commitBelow(before.offsetOf('b'))
      await delay(700)
      await first.stopConsuming(async () => {})
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(1)
      expect(after.texts).toEqual(['d'])
    })

    test('what a lease says after its end is not committed', async () => {
      const first = await open()
      await putAll(first, ['a', 'b'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(2)
      const lease = before.leaseWith('a')
      await first.stopConsuming(async () => {})
      expect(lease.ended.aborted).toBe(true)
      expect(before.ended).toContain(lease)
      lease.commitBelow(before.offsetOf('b') + 1n)
      await delay(300)
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(2)
      expect(after.texts).toEqual(['a', 'b'])
      expect(after.leaseWith('a')).not.toBe(lease)
    })

    test('nothing is lost when the process ends between hand-over and commit', async () => {
      const first = await open()
      await putAll(first, ['a', 'b', 'c'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(3)
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(3)
      expect(after.texts).toEqual(['a', 'b', 'c'])
    })

    test('what is settled while leaving is committed, and nothing new is handed over meanwhile', async () => {
      const first = await open()
      await putAll(first, ['a', 'b'])
      const before = new RecordTaker()
      await first.consume(before)
      await before.count(2)
      let handedOverWhileSettling = 0
      await first.stopConsuming(async () => {
        before.onBatch = (_lease, records) => {
          handedOverWhileSettling += records.length
        }
        await put(first, 'c')
        await delay(500)
        const lease = before.leaseWith('b')
        expect(lease.ended.aborted).toBe(false)
        lease.commitBelow(before.offsetOf('b') + 1n)
      })
      expect(handedOverWhileSettling).toBe(0)
      await first.close()

      const second = await open()
      const after = new RecordTaker()
      await second.consume(after)
      await after.count(1)
      expect(after.texts).toEqual(['c'])
    })

    test('a paused partition hands over nothing until it goes on; other lanes do not notice', async () => {
      const queue = await open()
      const taker = new RecordTaker()
      await queue.consume(taker)
      await put(queue, 'first', 'low')
      await taker.count(1)
      const lease = taker.leaseWith('first')
      lease.pause()
      await putAll(queue, ['second', 'third'], 'low')
      await put(queue, 'urgent', 'high')
      await taker.until(({ texts }) => texts.includes('urgent'))
      await delay(700)
      expect(taker.texts).toEqual(['first', 'urgent'])
      const resumedAt = performance.now()
      lease.resume()
      await taker.count(4)
      // Rather than after the five seconds that a fetch waits by default.
      expect(performance.now() - resumedAt).toBeLessThan(4_500)
      expect(taker.texts).toEqual(['first', 'urgent', 'second', 'third'])
      expect(lease.ended.aborted).toBe(false)
    })

    test('a full backlog refuses with BACKLOG_FULL and keeps nothing of what it refused', async () => {
      const queue = await open({ backlogRecordsMax: 10 })
      const results = await Promise.allSettled(Array.from({ length: 30 }, (_, index) => put(queue, `${index}`)))
      const refused = results.filter((result) => result.status === 'rejected')
      expect(refused).toHaveLength(20)
      expect(refused.map(({ reason }) => reason.reason)).toEqual(Array(20).fill('BACKLOG_FULL'))
      await put(queue, 'later')
      const taker = new RecordTaker()
      await queue.consume(taker)
      await taker.count(11)
      await delay(300)
      expect(taker.texts).toEqual([...Array.from({ length: 10 }, (_, index) => `${index}`), 'later'])
    })

    test('dead letters are kept apart', async () => {
      const queue = await open()
      await queue.publishDeadLetter('device-1', bytesOf('broken'))
      await queue.publishDeadLetter('device-1', bytesOf('broken too'))
      await put(queue, 'whole')
      const taker = new RecordTaker()
      await queue.consume(taker)
      await taker.count(1)
      await queue.stopConsuming(async () => {})
      expect(taker.texts).toEqual(['whole'])
      await queue.close()
      expect(await stand.deadLetters()).toEqual([
        { key: 'device-1', text: 'broken' },
        { key: 'device-1', text: 'broken too' },
      ])
    })

    const textsOf = (letters: readonly StoredDeadLetter[]) => letters.map((letter) => textOf(letter))

    test('dead letters are listed page by page, each once, those of a key in the order they were put there', async () => {
      const queue = await open()
      expect(await queue.listDeadLetters({ limit: 10 })).toEqual({ letters: [], more: false })
      const before = Date.now()
      for (let index = 0; index < 9; index++) await queue.publishDeadLetter(`device-${index % 3}`, bytesOf(`${index}`))
      const letters: StoredDeadLetter[] = []
      let pages = 0
      for (let more = true; more; pages++) {
        const page = await queue.listDeadLetters({ after: letters.at(-1), limit: 4 })
        letters.push(...page.letters)
        more = page.more
        expect(page.letters).toHaveLength(more ? 4 : 1)
      }
      expect(pages).toBe(3)
      expect(textsOf(letters).toSorted()).toEqual(['0', '1', '2', '3', '4', '5', '6', '7', '8'])
      for (const key of ['device-0', 'device-1', 'device-2']) {
        const texts = textsOf(letters.filter((letter) => letter.key === key))
        expect(texts).toEqual(texts.toSorted())
        expect(texts).toHaveLength(3)
      }
      expect(letters.every(({ timestampMs }) => timestampMs >= before - 1 && timestampMs <= Date.now() + 1)).toBe(true)
      expect(new Set(letters.map(({ partition, offset }) => `${partition}:${offset}`)).size).toBe(9)
    })

    test('a page ends early where its letters are large', async () => {
      const queue = await open()
      for (let index = 0; index < 30; index++) await queue.publishDeadLetter('device-1', new Uint8Array(690 * 1024))
      const first = await queue.listDeadLetters({ limit: 1_000 })
      expect(first).toMatchObject({ more: true })
      expect(first.letters).toHaveLength(23)
      const rest = await queue.listDeadLetters({ after: first.letters.at(-1), limit: 1_000 })
      expect(rest).toMatchObject({ more: false })
      expect(rest.letters).toHaveLength(7)
    })

    test('dead letters are read by their positions, however far apart; one that is not there is left out', async () => {
      const queue = await open()
      await Promise.all(
        Array.from({ length: 50 }, (_, index) => queue.publishDeadLetter(`device-${index % 5}`, bytesOf(`${index}`))),
      )
      const { letters } = await queue.listDeadLetters({ limit: 100 })
      const wanted = letters.filter((_, index) => index % 7 === 0)
      const missing = [
        { partition: 0, offset: 1_000_000n },
        { partition: 99, offset: 0n },
      ]
      const found = await queue.readDeadLetters([...missing, ...wanted.toReversed()])
      expect(textsOf(found)).toEqual(textsOf(wanted))
      expect(found).toEqual(wanted)
      expect(await queue.readDeadLetters(missing)).toEqual([])
    })

    test('purging removes what was put there before, counts it, and leaves the rest where it is', async () => {
      const queue = await open()
      for (const text of ['a', 'b', 'c']) await queue.publishDeadLetter(`device-${text}`, bytesOf(text))
      await delay(20)
      const moment = Date.now()
      await delay(20)
      for (const text of ['d', 'e']) await queue.publishDeadLetter(`device-${text}`, bytesOf(text))
      const { letters } = await queue.listDeadLetters({ limit: 10 })
      expect(await queue.purgeDeadLettersBefore(moment)).toBe(3)
      expect(await queue.purgeDeadLettersBefore(moment)).toBe(0)
      const kept = letters.filter((letter) => ['d', 'e'].includes(textOf(letter)))
      expect(await queue.listDeadLetters({ limit: 10 })).toEqual({ letters: kept, more: false })
      expect(await queue.readDeadLetters(letters)).toEqual(kept)
    })

    test('a copy of a receipt is taken, and handed to nobody', async () => {
      const queue = await open()
      await queue.publishReceipt('message-1', bytesOf('receipt'))
      await put(queue, 'message')
      const taker = new RecordTaker()
      await queue.consume(taker)
      await taker.count(1)
      await queue.stopConsuming(async () => {})
      expect(taker.texts).toEqual(['message'])
    })

    test('audit records are taken, and handed to nobody', async () => {
      const queue = await open()
      await Promise.all(['a', 'b'].map((text) => queue.publishAudit('edge/e1', bytesOf(text))))
      await put(queue, 'message')
      const taker = new RecordTaker()
      await queue.consume(taker)
      await taker.count(1)
      await queue.stopConsuming(async () => {})
      expect(taker.texts).toEqual(['message'])
      await queue.close()
      await expect(queue.publishAudit('edge/e1', bytesOf('c'))).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    })

    test('leases have rising generations, start before their records, and end once', async () => {
      const queue = await open()
      await put(queue, 'a')
      const taker = new RecordTaker()
      taker.onBatch = (lease) => expect(taker.started).toContain(lease)
      await queue.consume(taker)
      await taker.count(1)
      const generations = taker.started.map((lease) => lease.generation)
      expect(new Set(generations).size).toBe(generations.length)
      await queue.stopConsuming(async () => {})
      await queue.close()
      expect(taker.ended).toHaveLength(taker.started.length)
      expect(taker.started.every((lease) => lease.ended.aborted)).toBe(true)
    })

    test('an oversized record is refused alone', async () => {
      const queue = await open()
      const large = queue.publish({ lane: 'low', key: 'device-1', value: new Uint8Array(2 * 1024 * 1024) })
      const small = put(queue, 'small', 'low')
      await expect(large).rejects.toMatchObject({ reason: 'PAYLOAD_TOO_LARGE' })
      await small
    })

    test('a closed queue answers QUEUE_UNAVAILABLE and says so', async () => {
      const queue = await open()
      const states: string[] = []
      queue.onStateChange((state) => states.push(state))
      expect(queue.state).toBe('ready')
      await queue.close()
      expect(queue.state).toBe('unavailable')
      expect(states).toEqual(['unavailable'])
      await expect(put(queue, 'late')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
      await expect(queue.listDeadLetters({ limit: 1 })).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
      await expect(queue.purgeDeadLettersBefore(0)).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    })

    test('a partition that stands nowhere cannot be skipped', async () => {
      const queue = await open()
      const taker = new RecordTaker()
      await queue.consume(taker)
      await put(queue, 'a')
      await taker.count(1)
      expect(await queue.skip('normal', taker.leaseWith('a').partition, 0n)).toBe(false)
    })
  })
}
