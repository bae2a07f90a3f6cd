import { Metadata } from 'nice-grpc-common'
import { expect, inject, onTestFinished, test } from 'vitest'
import { DeadLetter, QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { Priority, StateReason } from '../../gen/push/v1/message.ts'
import { DeadLetterReplayState } from '../../gen/push/v1/operations.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { emptyMessage } from '../dispatch/testing/dispatch-bench.ts'
import { kafkaStand } from '../queue/testing/kafka-stand.ts'
import { RecordTaker } from '../queue/testing/record-taker.ts'
import { createDeadLetterCalls } from './dead-letters.ts'
import { createPermissions } from './permissions.ts'

test('on Kafka: what is buried in many partitions is listed, replayed once each in the order named, and purged', async () => {
  const stand = kafkaStand(inject('kafkaBrokers'), { partitionCount: 6 })
  onTestFinished(() => stand.close())
  const { queue } = await stand.openReady()
  const calls = createDeadLetterCalls({
    permissions: createPermissions(() => undefined, systemClock),
    queue,
    replayRatePerSecond: 1_000,
    clock: systemClock,
    log: silentLog,
    metrics: createMetrics(),
  })
  const context = { metadata: Metadata(), signal: new AbortController().signal } as Parameters<typeof calls.listDeadLetters>[1]
  const nowMicros = systemClock.nowMicros()
  const ids = Array.from({ length: 120 }, (_, index) => `m-${index}`)
  await Promise.all(
    ids.map((messageId, index) => {
      const key = `tv-${index % 40}`
      const message = { ...emptyMessage(), target: { $case: 'deviceId' as const, value: key }, priority: Priority.LOW }
      const queued = QueuedMessage.fromPartial({
        messageId,
        message,
        acceptTime: nowMicros,
        expireTime: nowMicros + 3_600_000_000,
      })
      const value = Buffer.from(QueuedMessage.encode(queued).finish())
      const letter = DeadLetter.fromPartial({ reason: StateReason.TOO_LARGE, detail: 'large', time: nowMicros, value, messageId })
      return queue.publishDeadLetter(key, DeadLetter.encode(letter).finish())
    }),
  )

  const listed: { position?: string; messageId?: string }[] = []
  let pageToken = ''
  do {
    const page = await calls.listDeadLetters({ pageSize: 50, pageToken }, context)
    listed.push(...(page.deadLetters ?? []))
    pageToken = page.nextPageToken ?? ''
  } while (pageToken !== '')
  expect(listed.map(({ messageId }) => messageId).toSorted()).toEqual(ids.toSorted())

  // In another order than they lie in.
  const named = listed.toReversed().filter((_, index) => index % 3 > 0)
  const positions = named.map(({ position }) => position ?? '')
  const answer = await calls.replayDeadLetters({ positions, dryRun: false }, context)
  expect(answer.replayedCount).toBe(80)
  expect(answer.replays).toEqual(
    named.map(({ position, messageId }) => ({ position, messageId, state: DeadLetterReplayState.REPLAYED, detail: '' })),
  )
  const taker = new RecordTaker()
  await queue.consume(taker)
  await taker.count(80)
  const again = taker.records.map(({ value }) => QueuedMessage.decode(value))
  expect(again.map(({ messageId }) => messageId).toSorted()).toEqual(named.map(({ messageId }) => messageId).toSorted())
  expect(again.every(({ attempt }) => attempt === 1)).toBe(true)
  expect(taker.records.every(({ lane, key }) => lane === 'low' && key.startsWith('tv-'))).toBe(true)

  const before = { seconds: Math.floor(systemClock.now() / 1_000), nanos: (systemClock.now() % 1_000) * 1_000_000 }
  expect(await calls.purgeDeadLetters({ before }, context)).toEqual({ purgedCount: 120 })
  expect(await calls.listDeadLetters({ pageSize: 0, pageToken: '' }, context)).toEqual({ deadLetters: [], nextPageToken: '' })
  await expect(calls.getDeadLetter({ position: positions[0] ?? '' }, context)).rejects.toMatchObject({
    reason: 'DEAD_LETTER_UNKNOWN',
  })
})
