import { Status } from 'nice-grpc-common'
import { expect, test } from 'vitest'
import type { PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse } from '../../gen/push/v1/publish.ts'
import { PushError } from '../../service-kit/errors.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { emptyMessage, settle } from '../dispatch/testing/dispatch-bench.ts'
import { createPublishStream } from './publish-stream.ts'

const accepted: PublishResponse = {
  messageId: 'm',
  acceptTime: undefined,
  expireTime: undefined,
  state: 1,
  outcome: undefined,
  devices: [],
}

/** A stream whose items are published when the test says so. */
function streamBench(inFlightMax = 3) {
  const metrics = createMetrics()
  const waiting = new Map<string, { resolve: (response: PublishResponse) => void; reject: (error: Error) => void }>()
  const ended = new AbortController()
  let readCount = 0
  const publishStream = createPublishStream({
    publish: ({ message }: PublishRequest) =>
      new Promise((resolve, reject) => {
        waiting.set(message?.name ?? 'none', { resolve, reject })
      }),
    inFlightMax,
    log: silentLog,
    metrics,
  })
  async function* requests(count: number): AsyncGenerator<PublishStreamRequest> {
    for (let sequence = 1; sequence <= count; sequence++) {
      readCount++
      yield { sequence, publish: { message: { ...emptyMessage(), name: `n${sequence}` }, mode: 0 } }
    }
  }
  const context = { signal: ended.signal } as Parameters<typeof publishStream>[1]
  return {
    metrics,
    waiting,
    abort: () => ended.abort(),
    readCount: () => readCount,
    open(count: number) {
      const said: string[] = []
      const stream = publishStream(requests(count), context)
      const say = ({ sequence, result }: PublishStreamResponse) =>
        said.push(
          result?.$case === 'refused' ? `${sequence} ${result.value.reason} ${result.value.code}` : `${sequence} accepted`,
        )
      const done = (async () => {
        for await (const response of stream) say(response)
      })()
      return { said, done }
    },
  }
}

test('each item is answered under its own number, as soon as it is done, in any order', async () => {
  const bench = streamBench()
  const stream = bench.open(3)
  await settle()
  bench.waiting.get('n3')?.resolve(accepted)
  await settle()
  expect(stream.said).toEqual(['3 accepted'])
  bench.waiting.get('n1')?.resolve(accepted)
  bench.waiting.get('n2')?.resolve(accepted)
  await stream.done
  expect(stream.said).toEqual(['3 accepted', '1 accepted', '2 accepted'])
})

test('a bad item is refused alone, with its reason; a defect does not show its own words', async () => {
  const bench = streamBench()
  const stream = bench.open(3)
  await settle()
  bench.waiting.get('n1')?.reject(new PushError('TTL_OUT_OF_RANGE', 'too long'))
  bench.waiting.get('n2')?.reject(new Error('secret words'))
  bench.waiting.get('n3')?.resolve(accepted)
  await stream.done
  expect(stream.said).toEqual([`1 TTL_OUT_OF_RANGE ${Status.INVALID_ARGUMENT}`, `2 INTERNAL ${Status.INTERNAL}`, '3 accepted'])
})

test('a slow queue slows the publisher: no more is read than may be in flight', async () => {
  const bench = streamBench(3)
  const stream = bench.open(100)
  await settle()
  expect(bench.readCount()).toBe(3)
  expect(await metricValue(bench.metrics, 'push_router_publish_stream_in_flight')).toBe(3)
  for (let n = 1; n <= 100; n++) {
    bench.waiting.get(`n${n}`)?.resolve(accepted)
    await settle()
    expect(bench.readCount()).toBeLessThanOrEqual(n + 3)
  }
  await stream.done
  expect(stream.said).toHaveLength(100)
  expect(await metricValue(bench.metrics, 'push_router_publish_stream_in_flight')).toBe(0)
})

test('a publisher that does not take its answers is not read either', async () => {
  const bench = streamBench(2)
  const publishStream = createPublishStream({
    publish: () => Promise.resolve(accepted),
    inFlightMax: 2,
    log: silentLog,
    metrics: bench.metrics,
  })
  let readCount = 0
  async function* requests(): AsyncGenerator<PublishStreamRequest> {
    for (;;) {
      readCount++
      yield { sequence: readCount, publish: undefined }
    }
  }
  const ended = new AbortController()
  const stream = publishStream(requests(), { signal: ended.signal } as Parameters<typeof publishStream>[1])
  await stream.next()
  await settle()
  expect(readCount).toBeLessThanOrEqual(4)
  ended.abort()
  await stream.return()
})

test('a caller that goes away ends the stream, and nothing waits any more', async () => {
  const bench = streamBench()
  const stream = bench.open(10)
  await settle()
  bench.abort()
  await stream.done
  expect(await metricValue(bench.metrics, 'push_router_publish_stream_in_flight')).toBe(0)
})
