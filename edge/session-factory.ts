import type { Log } from '../service-kit/log.ts'
import { closeKinds } from './close-codes.ts'
import type { AdmittedDevice } from './device-server.ts'
import { DeviceSession } from './device-session.ts'
import type { Registration } from './registration.ts'
import type { SessionHost } from './session-host.ts'

/** Makes sessions of admitted devices. */
export interface SessionFactory {
  admit(device: AdmittedDevice): void
  /** Resolves when no registration is under way. */
  settled(): Promise<void>
}

export function createSessionFactory(options: {
  readonly host: SessionHost
  readonly registration: Registration
  readonly log: Log
}): SessionFactory {
  const { host, registration, log } = options
  const registering = new Set<Promise<void>>()

  const register = async (session: DeviceSession): Promise<void> => {
    try {
      session.handle(await registration.register(session))
    } catch (cause) {
      log.error('a session ended by a defect', { device_id: session.deviceId, session_id: session.sessionId, cause })
      session.handle({ type: 'end', kind: closeKinds.internalError })
    }
  }

  return {
    admit({ carrier, deviceId, accountId, acknowledges, credentialEndsAt, credentialEndsAtMax }) {
      const { transport } = carrier
      // 16 random bytes make 22 characters: nobody guesses the id of another's session.
      const sessionId = Buffer.from(host.random.bytes(16)).toString('base64url')
      const session = new DeviceSession(host, transport, {
        deviceId,
        sessionId,
        accountId,
        acknowledges,
        credentialEndsAt,
        credentialEndsAtMax,
      })
      carrier.bind(session)
      host.metrics.sessionsAdmitted.inc({ protocol: session.protocol })
      // Before Register is called: a delivery or a close may come before its answer does.
      host.sessions.add(session)
      session.start()
      const done = register(session).finally(() => registering.delete(done))
      registering.add(done)
    },
    async settled() {
      while (registering.size > 0) await Promise.all(registering)
    },
  }
}
