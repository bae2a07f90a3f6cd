import type { IncomingMessage, ServerResponse } from 'node:http'
import type { DeviceJudge } from './auth/device-judge.ts'
import type { IdentityVerdict } from './auth/identity.ts'
import { type CloseKind, closeKinds } from './close-codes.ts'
import { answerPreflight, originOf } from './cross-origin.ts'
import type { ControlFrame } from './frames.ts'
import { acknowledgesIn, bearerOf, type Refusal, type RefusalReason } from './handshake.ts'
import { disbelief, errorReasonOf, goawayOf, retryMsOf, unauthenticated } from './refusals.ts'
import type { RetryAfter } from './retry-after.ts'
import type { Carrier } from './session-host.ts'
import { beginStream, eventStreamCarrier, type StreamShared, wasToldToStayAway } from './sse.ts'
import { eventText } from './sse-codec.ts'

/** Where devices open event streams. */
export const eventsPath = '/v1/events'

/** A device that has been let in by a request for an event stream. */
export interface StreamedDevice {
  readonly carrier: Carrier
  readonly acknowledges: boolean
  readonly identified: IdentityVerdict & { ok: true }
}

export interface EventRequestsOptions {
  readonly allowedOrigins: readonly string[]
  readonly judge: DeviceJudge
  /** Why nobody can be let in now; undefined when one can. */
  readonly shut: (request: IncomingMessage) => Refusal | undefined
  /** The credential of this request holds. */
  readonly authenticated: (request: IncomingMessage) => void
  readonly admit: (device: StreamedDevice) => void
  /** Counts and logs one that was not let in, by status or close code. */
  readonly note: (reason: RefusalReason, answer: number, request: IncomingMessage) => void
  readonly retryAfter: RetryAfter
  readonly shared: StreamShared
}

/** Answers requests for event streams. Never rejects for what a client does. */
export type EventRequests = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/**
 * An EventSource gives up for ever on an error status, and comes again by itself after a stream that ends. So whoever may come again later is answered
 * with a stream that says so and ends; a status says that coming again with the same request is of no use.
 *
 * The credential is taken from the header alone. Addresses end up in logs and histories, and cookies go along with what another site makes a browser
 * send. `Last-Event-ID` answers nothing: that an event was seen does not mean that its message was handled. It only tells who was sent away for good.
 */
export function createEventRequests(options: EventRequestsOptions): EventRequests {
  const { judge, retryAfter, shared } = options

  return async (request, response) => {
    const cors = originOf(request, options.allowedOrigins)
    const refuse = (refusal: Refusal, body = `${refusal.message}\n`, contentType = 'text/plain') => {
      options.note(refusal.reason, refusal.status, request)
      response.writeHead(refusal.status, {
        connection: 'close',
        'content-type': contentType,
        ...refusal.headers,
        ...cors.headers,
      })
      response.end(body)
    }
    /** A verdict about this credential: as JSON, so that a client can tell one that has expired from one that never holds. */
    const disbelieve = (refusal: Refusal, { code }: CloseKind) =>
      refuse(refusal, `${JSON.stringify({ type: 'close', code, reason: refusal.message })}\n`, 'application/json')
    /** Passes: the client shall come again. */
    const putOff = (refusal: Refusal, frame: ControlFrame) => {
      const { code, text } = closeKinds.tryAgainLater
      const retryMs = retryMsOf(refusal)
      options.note(refusal.reason, code, request)
      beginStream(response, cors.headers, retryMs)
      response.end(`${eventText(frame)}${eventText({ type: 'close', code, reason: text }, retryMs)}`)
    }

    if (!cors.allowed) return refuse({ status: 403, reason: 'wrong_origin', message: 'pages of this origin may not connect' })
    if (request.method === 'OPTIONS') return answerPreflight('GET', cors.headers, response)
    if (request.method !== 'GET') {
      const message = 'event streams are opened with GET'
      return refuse({ status: 405, reason: 'wrong_method', message, headers: { allow: 'GET, OPTIONS' } })
    }
    const acknowledges = acknowledgesIn(request.url?.split('?', 2)[1] ?? '')
    if (acknowledges === undefined) return refuse({ status: 400, reason: 'wrong_query', message: 'acks may only be none' })

    if (wasToldToStayAway(headerText(request.headers['last-event-id']))) {
      options.note('sent_away', 204, request)
      response.writeHead(204, { connection: 'close', ...cors.headers }).end()
      return
    }

    const closed = options.shut(request)
    if (closed !== undefined) {
      return putOff(closed, goawayOf(closed))
    }
    const verdict = await judge(request.socket, bearerOf(request.headers.authorization))
    if (verdict === undefined) {
      const message = 'a bearer credential is required, in the header Authorization'
      return disbelieve(unauthenticated('unauthenticated', message), closeKinds.authenticationFailed)
    }
    if (verdict.ok) options.authenticated(request)
    if (response.destroyed) return // gone meanwhile
    if (verdict.ok) {
      const carrier = eventStreamCarrier(response, cors.headers, shared)
      return options.admit({ carrier, acknowledges, identified: verdict })
    }
    const { refusal, kind } = disbelief(verdict, retryAfter)
    if (verdict.verdict !== 'unavailable') return disbelieve(refusal, kind)
    putOff(refusal, { type: 'error', reason: errorReasonOf(verdict), message: verdict.detail })
  }
}

function headerText(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header
}
