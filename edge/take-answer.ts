import { isPushId } from '../service-kit/ids.ts'
import { type DeviceAnswer, isRepeated, lateAnswerOf, outcomeOf } from './device-answer.ts'
import type { DeviceSession } from './device-session.ts'
import type { SessionHost } from './session-host.ts'

/** Finds who waits for a device's answer: on this session, on another one of the device here, or at a router. */
export function takeAnswer(host: SessionHost, session: DeviceSession, messageId: string, answer: DeviceAnswer): void {
  const { sessions, finalAnswers, metrics, clock } = host
  const { deviceId, sessionId } = session
  if (session.settle(messageId, answer)) return
  // A device may answer on its new connection what came by the old one.
  for (const other of sessions.ofDevice(deviceId)) {
    if (other !== session && other.settle(messageId, answer)) return
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
