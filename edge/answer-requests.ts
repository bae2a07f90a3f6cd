import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Clock } from '../service-kit/clock.ts'
import { createTokenBucket, type TokenBucket, type TokenRate } from '../service-kit/token-bucket.ts'
import type { DeviceJudge } from './auth/device-judge.ts'
import { answerPreflight, originOf } from './cross-origin.ts'
import type { EdgeMetrics } from './edge-metrics.ts'
import { FrameLimits } from './frame-limits.ts'
import { type ClientFrame, type DecodedFrame, invalidFrame, readClientFrame } from './frames.ts'
import { bearerOf, type Refusal, type RefusalReason } from './handshake.ts'
import { disbelief, errorReasonOf, unauthenticated } from './refusals.ts'
import type { RetryAfter } from './retry-after.ts'

/** Where devices answer what came by an event stream. Any edge takes it. */
export const answersPath = '/v1/answers'

/** Most frames in one request. */
export const answerFramesMax = 100
/** Most requests that are being read or judged at once; more get 503. */
export const answersInFlightMax = 1_024
/** Requests a second of one device, and how many at once after a pause; more get 429. */
export const answersPerSecond = 20
export const answersBurst = 100
/** Devices whose rate is remembered; above it the one that asked first is forgotten, and may ask as after a pause. */
export const ratedDevicesMax = 65_536

export interface AnswerRequestsOptions {
  readonly allowedOrigins: readonly string[]
  readonly judge: DeviceJudge
  /** Largest body. */
  readonly bodyLimitBytes: number
  /** Why the request is not looked at; undefined when it is. */
  readonly shut: (request: IncomingMessage) => Refusal | undefined
  /** The credential of this request holds. */
  readonly authenticated: (request: IncomingMessage) => void
  /** What a device may send, as on a WebSocket: what costs is to read it and to look for it. */
  readonly deviceFrames: () => TokenRate
  /** Whether the frame is the first answer to what the device was sent from here. */
  readonly awaits: (deviceId: string, frame: ClientFrame) => boolean
  /** Takes one answer of that device. */
  readonly take: (deviceId: string, frame: ClientFrame) => void
  /** Shows a new credential to the event stream of that device; false when none is open here. */
  readonly showCredential: (deviceId: string, token: string) => boolean
  readonly note: (reason: RefusalReason, answer: number, request: IncomingMessage) => void
  readonly retryAfter: RetryAfter
  readonly clock: Clock
  readonly metrics: EdgeMetrics
}

/** Answers requests with answers. Never rejects for what a client does. */
export type AnswerRequests = (request: IncomingMessage, response: ServerResponse) => Promise<void>

/** All answers of one request are taken, or none: a body with something wrong in it changes nothing. */
export function createAnswerRequests(options: AnswerRequestsOptions): AnswerRequests {
  const { judge, retryAfter, clock, metrics } = options
  const rates = new Map<string, { readonly requests: TokenBucket; readonly frames: FrameLimits }>()
  let inFlight = 0

  const rateOf = (deviceId: string) => {
    const known = rates.get(deviceId)
    if (known !== undefined) return known
    const rate = {
      requests: createTokenBucket({ ratePerSecond: answersPerSecond, burst: answersBurst, clock }),
      frames: new FrameLimits({ deviceFrames: options.deviceFrames() }, clock.monotonic()),
    }
    rates.set(deviceId, rate)
    const [oldest] = rates.keys()
    if (oldest !== undefined && rates.size > ratedDevicesMax) rates.delete(oldest)
    return rate
  }

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const cors = originOf(request, options.allowedOrigins)
    /** Tells in an `error` frame what is wrong. Unread bodies are not worth keeping the connection for. */
    const refuse = ({ status, reason, message, headers }: Refusal, errorReason: string) => {
      options.note(reason, status, request)
      const read = request.complete ? {} : { connection: 'close' }
      response.writeHead(status, { 'content-type': 'application/json', ...read, ...headers, ...cors.headers })
      response.end(`${JSON.stringify({ type: 'error', reason: errorReason, message })}\n`)
    }
    const later = () => ({ 'retry-after': String(retryAfter.next()) })

    if (!cors.allowed) {
      return refuse({ status: 403, reason: 'wrong_origin', message: 'pages of this origin may not answer' }, 'INVALID_FRAME')
    }
    if (request.method === 'OPTIONS') return answerPreflight('POST', cors.headers, response)
    if (request.method !== 'POST') {
      const message = 'answers are sent with POST'
      return refuse({ status: 405, reason: 'wrong_method', message, headers: { allow: 'POST, OPTIONS' } }, 'INVALID_FRAME')
    }
    if (inFlight > answersInFlightMax) {
      const message = 'too many answers come at once'
      return refuse({ status: 503, reason: 'answers_full', message, headers: later() }, 'OVERLOADED')
    }
    const closed = options.shut(request)
    if (closed !== undefined) return refuse(closed, 'OVERLOADED')
    const verdict = await judge(request.socket, bearerOf(request.headers.authorization))
    if (verdict === undefined) {
      const message = 'a bearer credential is required, in the header Authorization'
      return refuse(unauthenticated('unauthenticated', message), 'UNAUTHENTICATED')
    }
    if (!verdict.ok) {
      const { refusal } = disbelief(verdict, retryAfter)
      return refuse(refusal, errorReasonOf(verdict))
    }
    options.authenticated(request)
    const rate = rateOf(verdict.deviceId)
    if (!rate.requests.take()) {
      const message = `more than ${answersPerSecond} requests a second; put several answers into one`
      return refuse({ status: 429, reason: 'answers_rate', message, headers: later() }, 'RATE_EXCEEDED')
    }
    const body = await readBody(request, options.bodyLimitBytes)
    if (body === 'gone') return
    if (body === 'too large') {
      const message = `the body is larger than ${options.bodyLimitBytes} bytes`
      return refuse({ status: 413, reason: 'too_large', message }, 'INVALID_FRAME')
    }
    const decoded = decodeAnswers(body)
    if (!decoded.ok) {
      metrics.badFrames.inc({ reason: decoded.reason })
      return refuse({ status: 400, reason: 'invalid_answers', message: decoded.message }, decoded.reason)
    }
    const deviceFrames = options.deviceFrames()
    const awaited = decoded.frames.every((frame) => options.awaits(verdict.deviceId, frame))
    if (!awaited && !rate.frames.takeTogether({ deviceFrames }, clock.monotonic(), decoded.frames, body.length)) {
      const message = `a device sends at most ${deviceFrames.ratePerSecond} frames a second, and ${deviceFrames.burst} at once`
      return refuse({ status: 429, reason: 'answers_rate', message, headers: later() }, 'RATE_EXCEEDED')
    }
    // Of several the newest is meant.
    const credentialFrame = decoded.frames.findLast((frame) => frame.type === 'credential')
    if (credentialFrame?.type === 'credential' && !options.showCredential(verdict.deviceId, credentialFrame.token)) {
      const message = 'no event stream of this device is open at this edge'
      return refuse({ status: 409, reason: 'no_stream', message }, 'INVALID_FRAME')
    }
    for (const frame of decoded.frames) options.take(verdict.deviceId, frame)
    response.writeHead(204, cors.headers)
    response.end()
  }

  return async (request, response) => {
    metrics.answerRequests.set(++inFlight)
    try {
      await answer(request, response)
    } finally {
      metrics.answerRequests.set(--inFlight)
    }
  }
}

type Decoded = { readonly ok: true; readonly frames: ClientFrame[] } | (DecodedFrame & { readonly ok: false })

/** One frame of the JSON form, or a list of them. Never throws. */
export function decodeAnswers(body: string): Decoded {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch {
    return problem('the body must be a frame or a list of frames; this is not JSON')
  }
  const objects: unknown[] = Array.isArray(value) ? value : [value]
  if (objects.length === 0 || objects.length > answerFramesMax)
    return problem(`the body must hold 1 to ${answerFramesMax} frames`)
  const frames: ClientFrame[] = []
  for (const [index, object] of objects.entries()) {
    const decoded = decodeOne(object)
    if (!decoded.ok) return { ...decoded, message: `frame ${index + 1} of ${objects.length}: ${decoded.message}` }
    frames.push(decoded.frame)
  }
  return { ok: true, frames }
}

function decodeOne(value: unknown): DecodedFrame {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return invalidFrame('a frame is a JSON object')
  const { type, ...fields } = value as Record<string, unknown>
  if (typeof type !== 'string') return invalidFrame('type must be a string')
  return readClientFrame(type, fields)
}

function problem(message: string): Decoded {
  return { ok: false, reason: 'INVALID_FRAME', message }
}

/** Reads the body to its end. How long that may take is the HTTP server's to bound. */
async function readBody(request: IncomingMessage, limitBytes: number): Promise<string | 'too large' | 'gone'> {
  if (Number(request.headers['content-length'] ?? 0) > limitBytes) return 'too large'
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      size += chunk.length
      if (size > limitBytes) return 'too large'
      chunks.push(chunk)
    }
  } catch {
    return 'gone'
  }
  return Buffer.concat(chunks).toString('utf8')
}
