import type { CallContext } from 'nice-grpc-common'
import type {
  CloseSession,
  DeliverRequest,
  Delivery,
  EdgeServiceImplementation,
  InboxReady,
} from '../gen/push/internal/v1/edge.ts'
import { CloseReason, CloseSessionResult, InboxReadyResult, OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import type { DrainContext } from '../service-kit/drain-middleware.ts'
import { PushError } from '../service-kit/errors.ts'
import { isPushId } from '../service-kit/ids.ts'
import type { Log } from '../service-kit/log.ts'
import { AnswerStream } from './answer-stream.ts'
import { callDrain, type DrainHandle } from './drain-call.ts'
import { unwritten } from './entry.ts'
import type { SessionHost } from './session-host.ts'

/** The metadata by which a router says which edge it means. */
export const edgeIdMetadata = 'edge-id'

/** As edges mint them. A registry takes no others: one wrong id would fail the removal of all in its batch. */
const sessionIdPattern = /^[A-Za-z0-9_-]{22}$/
const disconnectDetailMax = 100
/** Sessions that are told in one tick that they all may have mail. */
const pokeAllChunk = 256

/** Serves routers. */
export function createEdgeService(options: {
  readonly edgeId: string
  readonly host: SessionHost
  /** Resolves when the edge can be drained. */
  readonly drain: Promise<DrainHandle>
  readonly log: Log
  /** Most answers that wait for one router; for tests. */
  readonly answersWaitingMax?: number
}): EdgeServiceImplementation<DrainContext> {
  const { edgeId, host, drain, log, answersWaitingMax } = options
  const { sessions, metrics, finalAnswers } = host

  /** A row has named a session that is not here: nobody else will remove it. */
  const removeGhost = (deviceId: string, sessionId: string) => {
    metrics.ghosts.inc()
    host.unregister({ deviceId, sessionId, epoch: 0 })
  }

  /** What the device has acknowledged is not written again on another session of it; only the result is still to come. */
  const awaiting = (deviceId: string, messageId: string) => {
    for (const session of sessions.ofDevice(deviceId)) if (session.awaits(messageId)) return session
    return undefined
  }

  const deliver = (delivery: Delivery, stream: AnswerStream) => {
    const { deliveryId, deviceId, sessionId, messageId } = delivery
    if (!isPushId(deviceId) || !isPushId(messageId) || !sessionIdPattern.test(sessionId)) {
      metrics.badItems.inc({ item: 'delivery' })
      stream.outcome(deliveryId, unwritten(OutcomeKind.TOO_LARGE, '', 'device, session or message id is malformed'))
      return
    }
    const answered = finalAnswers.find(deviceId, messageId)
    if (answered !== undefined) {
      metrics.joined.inc({ met: 'answered' })
      stream.outcome(deliveryId, answered)
      return
    }
    const named = sessions.find(deviceId, sessionId)
    if (named === undefined) removeGhost(deviceId, sessionId)
    const taker =
      awaiting(deviceId, messageId) ?? (named?.accepts || named?.holds(messageId) ? named : sessions.newestOpen(deviceId))
    if (taker !== undefined) {
      taker.deliver(delivery, { sink: stream, deliveryId })
      return
    }
    metrics.outcomes.inc({ kind: 'not_connected' })
    stream.outcome(deliveryId, unwritten(OutcomeKind.NOT_CONNECTED, sessionId))
  }

  /** A poke means one session and no other: another one has looked into the inbox when it came, or is poked itself. */
  const poke = ({ pokeId, deviceId, sessionId }: InboxReady, stream: AnswerStream) => {
    const wellFormed = isPushId(deviceId) && sessionIdPattern.test(sessionId)
    const session = wellFormed ? sessions.find(deviceId, sessionId) : undefined
    if (session !== undefined && !session.closed) {
      session.poke({ pokeId, sink: stream })
      return
    }
    if (!wellFormed) metrics.badItems.inc({ item: 'poke' })
    else if (session === undefined) removeGhost(deviceId, sessionId)
    metrics.pokes.inc({ result: 'not_connected' })
    stream.poke({ pokeId, result: InboxReadyResult.NOT_CONNECTED })
  }

  /** Lets all sessions flush, a chunk a tick, so that nobody else waits for it. How many do so at once is bounded where they call. */
  const pokeAll = async () => {
    let count = 0
    for (const session of [...sessions.all()]) {
      if (!session.closed) session.mail()
      if (++count % pokeAllChunk === 0) await new Promise<void>((resolve) => setImmediate(resolve))
    }
    metrics.pokes.inc({ result: 'all' })
    log.info('a router has lost count of its pokes; all sessions look into their inboxes', { session_count: count })
  }

  const closeSession = (close: CloseSession): CloseSessionResult => {
    const { deviceId, sessionId, reason } = close
    const known = reason === CloseReason.SUPERSEDED || reason === CloseReason.DISCONNECTED
    if (!known || !isPushId(deviceId) || !sessionIdPattern.test(sessionId)) {
      metrics.badItems.inc({ item: 'close' })
      return CloseSessionResult.NOT_CONNECTED
    }
    const session = sessions.find(deviceId, sessionId)
    if (session === undefined) {
      removeGhost(deviceId, sessionId)
      return CloseSessionResult.NOT_CONNECTED
    }
    const result = session.handle(
      reason === CloseReason.SUPERSEDED
        ? { type: 'replaced', replacer: { epoch: close.replacerEpoch, sessionId: close.replacerSessionId } }
        : { type: 'disconnect', detail: close.detail.slice(0, disconnectDetailMax) },
    )
    return result ?? CloseSessionResult.NOT_CONNECTED
  }

  /** One bad item must not take the others of its batch with it. */
  const alone = (item: 'delivery' | 'poke' | 'close', run: () => void, failed: () => void) => {
    try {
      run()
    } catch (cause) {
      metrics.badItems.inc({ item })
      log.error('an item of a router failed by a defect', { item, cause })
      failed()
    }
  }

  const take = (request: DeliverRequest, stream: AnswerStream) => {
    for (const close of request.closeSessions) {
      const tell = (result: CloseSessionResult) => stream.close({ closeId: close.closeId, result })
      alone(
        'close',
        () => tell(closeSession(close)),
        () => tell(CloseSessionResult.NOT_CONNECTED),
      )
    }
    for (const ready of request.inboxReady) {
      alone(
        'poke',
        () => poke(ready, stream),
        () => stream.poke({ pokeId: ready.pokeId, result: InboxReadyResult.NOT_CONNECTED }),
      )
    }
    for (const { pokeId } of request.inboxReadyAll) {
      void pokeAll().then(
        () => stream.poke({ pokeId, result: InboxReadyResult.ACCEPTED }),
        (cause: unknown) => log.error('a poke of all sessions failed by a defect', { cause }),
      )
    }
    for (const delivery of request.deliveries) {
      alone(
        'delivery',
        () => deliver(delivery, stream),
        () => stream.outcome(delivery.deliveryId, unwritten(OutcomeKind.TOO_LARGE, '', 'no frame can be formed')),
      )
    }
  }

  /** Ends the stream when the router has said all, or has gone. */
  const read = async (requests: AsyncIterable<DeliverRequest>, stream: AnswerStream) => {
    try {
      for await (const request of requests) {
        if (stream.ended) return
        take(request, stream)
      }
    } catch (cause) {
      // How a router goes is its own affair; what it waits for stays here and is joined by its next attempt.
      log.debug('a router stream broke', { cause })
    } finally {
      stream.end()
    }
  }

  const requireThisEdge = ({ metadata }: CallContext) => {
    if (metadata.get(edgeIdMetadata) === edgeId) return
    const message = `this process is edge ${edgeId}, not the one that was meant; look the device up again`
    throw new PushError('EDGE_RESTARTED', message, { edge_id: edgeId })
  }

  return {
    async *deliver(requests: AsyncIterable<DeliverRequest>, context: CallContext & DrainContext) {
      requireThisEdge(context)
      context.abortOnTerminate()
      // Routers hand nothing over before they have read this: until then they can tell "not sent" from "unknown".
      context.header.set(edgeIdMetadata, edgeId)
      context.sendHeader()
      const stream = new AnswerStream({
        ...(answersWaitingMax !== undefined && { waitingMax: answersWaitingMax }),
        onSlow: () => {
          metrics.slowStreams.inc()
          log.warn('a router does not take its answers; its stream is ended', { peer: context.peer })
        },
      })
      const end = () => stream.end()
      context.signal.addEventListener('abort', end, { once: true })
      metrics.streams.inc()
      try {
        void read(requests, stream)
        yield* stream.frames()
      } finally {
        metrics.streams.dec()
        context.signal.removeEventListener('abort', end)
        stream.end()
      }
    },

    async drain(request, context: CallContext) {
      requireThisEdge(context)
      return callDrain(await drain, edgeId, request)
    },

    async probe() {
      return { edgeId, sessionCount: sessions.size }
    },
  }
}
