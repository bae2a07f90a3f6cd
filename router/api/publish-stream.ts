import type { CallContext } from 'nice-grpc-common'
import type { PublishRequest, PublishResponse, PublishStreamRequest, PublishStreamResponse } from '../../gen/push/v1/publish.ts'
import { type PushError, toPushError } from '../../service-kit/errors.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'

/** What publish streams need. */
export interface PublishStreamOptions {
  /** Publishes one message, as the unary call does. */
  readonly publish: (request: PublishRequest, context: CallContext & ServedContext) => Promise<PublishResponse>
  /** Items of one stream that are taken and not answered. Above it the stream is not read, which slows its publisher down. */
  readonly inFlightMax: number
  readonly log: Log
  readonly metrics: Metrics
}

/** Publishes what comes on a stream. */
export type PublishStream = (
  requests: AsyncIterable<PublishStreamRequest>,
  context: CallContext & ServedContext,
) => AsyncGenerator<PublishStreamResponse, void, undefined>

/**
 * Creates the handler of publish streams. Each item is published as by a call of its own, and answered under its own number as soon as that is done, in
 * any order; a bad one is refused alone. The stream is read only while there is room, so that a slow queue slows the publisher and grows no
 * memory, here or there.
 */
export function createPublishStream({ publish, inFlightMax, log, metrics }: PublishStreamOptions): PublishStream {
  const items = metrics.counter('push_router_publish_stream_items_total', 'Items of publish streams by how they ended', [
    'result',
  ])
  const inFlight = metrics.gauge('push_router_publish_stream_in_flight', 'Items of publish streams that are not answered')
  const pauses = metrics.counter(
    'push_router_publish_stream_pauses_total',
    'Times a publish stream was not read because it had no room',
  )

  async function answer(
    { sequence, publish: request }: PublishStreamRequest,
    context: CallContext & ServedContext,
  ): Promise<PublishStreamResponse> {
    try {
      const accepted = await publish(request ?? { message: undefined, mode: 0 }, context)
      items.inc({ result: 'accepted' })
      return { sequence, result: { $case: 'accepted', value: accepted } }
    } catch (cause) {
      const error: PushError = toPushError(cause)
      if (error.reason === 'INTERNAL') log.error('an item of a publish stream failed by a defect', { cause })
      items.inc({ result: 'refused' })
      return {
        sequence,
        result: { $case: 'refused', value: { code: error.status, reason: error.reason, message: error.message } },
      }
    }
  }

  return async function* publishStream(requests, context) {
    const answers: PublishStreamResponse[] = []
    let flyingCount = 0
    let ended = false
    let closed = false
    let failure: { cause: unknown } | undefined
    let wakeReader = () => {}
    let wakeWriter = () => {}

    const read = async () => {
      try {
        for await (const request of requests) {
          if (closed) return
          flyingCount++
          inFlight.inc()
          void answer(request, context).then((response) => {
            answers.push(response)
            wakeWriter()
          })
          // What is answered and not yet taken by the publisher counts too: one that does not read is not read either.
          if (flyingCount < inFlightMax) continue
          pauses.inc()
          while (flyingCount >= inFlightMax && !closed) {
            await new Promise<void>((resolve) => {
              wakeReader = resolve
            })
          }
        }
      } catch (cause) {
        failure = { cause }
      } finally {
        ended = true
        wakeWriter()
      }
    }
    const stop = () => wakeWriter()
    context.signal.addEventListener('abort', stop, { once: true })
    void read()
    try {
      while (!context.signal.aborted) {
        const response = answers.shift()
        if (response) {
          yield response
          flyingCount--
          inFlight.dec()
          wakeReader()
        } else if (ended && flyingCount === 0) {
          if (failure) throw failure.cause
          return
        } else {
          await new Promise<void>((resolve) => {
            wakeWriter = resolve
            if (answers.length > 0 || context.signal.aborted || (ended && flyingCount === 0)) resolve()
          })
        }
      }
    } finally {
      context.signal.removeEventListener('abort', stop)
      inFlight.dec(flyingCount)
      closed = true
      wakeReader()
    }
  }
}
