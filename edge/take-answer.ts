import { isPushId } from '../service-kit/ids.ts'
import { type DeviceAnswer, isRepeated, lateAnswerOf, outcomeOf, resultOf } from './device-answer.ts'
import type { DeviceSession } from './device-session.ts'
import type { ClientFrame } from './frames.ts'
import type { SessionHost } from './session-host.ts'
import { sseCodec } from './sse-codec.ts'

/** Finds who waits for a device's answer: on this session, on another one of the device here, or at a router. */
export function takeAnswer(host: SessionHost, session: DeviceSession, messageId: string, answer: DeviceAnswer): void {
  const { deviceId, sessionId } = session
  if (!session.settle(messageId, answer)) takeAnswerOf(host, { deviceId, sessionId }, messageId, answer)
}

/** The same for an answer that came without a session; then `sessionId` is empty. */
export function takeAnswerOf(
  host: SessionHost,
  { deviceId, sessionId }: { readonly deviceId: string; readonly sessionId: string },
  messageId: string,
  answer: DeviceAnswer,
): void {
  const { sessions, finalAnswers, metrics, clock } = host
  // A device may answer on its new connection what came by the old one.
  for (const session of sessions.ofDevice(deviceId)) {
    if (session.sessionId !== sessionId && session.settle(messageId, answer)) return
  }
  const known = finalAnswers.find(deviceId, messageId)
  if (known !== undefined && isRepeated(answer, known)) return metrics.answers.inc({ became: 'repeated' })
  if (!isPushId(messageId)) return metrics.answers.inc({ became: 'malformed' })
  // Sent by another edge, or too long ago to be remembered. What was wanted of the device is not known here: a result goes up as one.
  metrics.answers.inc({ became: 'unknown' })
  const facts = { ...outcomeOf(answer, true, sessionId), answeredTime: clock.nowMicros() }
  finalAnswers.remember(deviceId, messageId, facts)
  host.reportLate(lateAnswerOf(deviceId, messageId, facts))
}

/** Whether all that the frame says is the first answer to messages that sessions of the device here hold: of such frames there are no more than was sent. */
export function isAwaited({ sessions }: SessionHost, deviceId: string, frame: ClientFrame): boolean {
  const { type } = frame
  if (type !== 'ack' && type !== 'nack' && type !== 'result') return false
  const expected = (messageId: string) => {
    for (const session of sessions.ofDevice(deviceId)) if (session.expects(messageId, type)) return true
    return false
  }
  return type === 'ack' ? frame.ids.every(expected) : expected(frame.id)
}

/** Gives a new credential to the newest event stream of the device here, as its only way is beside it. False when there is none. */
export function showCredentialOf(host: SessionHost, deviceId: string, token: string): boolean {
  for (const session of host.sessions.ofDevice(deviceId)) {
    if (session.protocol !== sseCodec.protocol || !session.writes) continue
    session.showCredential(token)
    return true
  }
  return false
}

/** What a device sends without a session. A ping or pong there says nothing of any stream, and is taken for nothing. */
export function takeFrameOf(host: SessionHost, deviceId: string, frame: ClientFrame): void {
  const from = { deviceId, sessionId: '' }
  if (frame.type === 'ack') for (const id of frame.ids) takeAnswerOf(host, from, id, { type: 'ack' })
  else if (frame.type === 'nack') takeAnswerOf(host, from, frame.id, { type: 'nack', detail: frame.reason ?? '' })
  else if (frame.type === 'result') takeAnswerOf(host, from, frame.id, resultOf(frame))
}
