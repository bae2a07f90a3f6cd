import type { Identity, IdentityVerdict } from './auth/identity.ts'
import { closeKinds } from './close-codes.ts'
import type { DeviceSession } from './device-session.ts'
import type { SessionHost } from './session-host.ts'

/** How a session is told what became of a new credential. Not called once the session has ended. */
export interface SessionCredentialEvents {
  /** It holds, and ends then on the monotonic clock. */
  accepted(endsAt: number): void
  /** It does not count, for this reason of an error frame. Nothing in the message comes from the credential. */
  refused(reason: 'UNAUTHENTICATED' | 'CREDENTIAL_EXPIRED' | 'OVERLOADED' | 'RATE_EXCEEDED', message: string): void
}

/** The new credentials that one open session is shown: judged one at a time, and not too often. */
export class SessionCredential {
  readonly #host: SessionHost
  readonly #session: DeviceSession
  readonly #events: SessionCredentialEvents
  #judging = false
  #notBefore = Number.NEGATIVE_INFINITY

  constructor(host: SessionHost, session: DeviceSession, events: SessionCredentialEvents) {
    this.#host = host
    this.#session = session
    this.#events = events
  }

  /** Has a new credential judged. Its verdict comes later. */
  show(identity: Identity, token: string): void {
    const { clock, metrics, settings } = this.#host
    if (this.#judging || clock.monotonic() < this.#notBefore) {
      metrics.credentialRefreshes.inc({ result: 'too_often' })
      this.#events.refused('RATE_EXCEEDED', `a new credential may be shown every ${settings.credentialRefreshMinMs} ms`)
      return
    }
    this.#judging = true
    this.#notBefore = clock.monotonic() + settings.credentialRefreshMinMs
    this.#judge(identity, token).catch((cause: unknown) => this.#host.failed(this.#session, cause))
  }

  async #judge(identity: Identity, token: string): Promise<void> {
    const verdict = await identity.authenticate({ text: token, from: 'frame' })
    this.#judging = false
    const { metrics } = this.#host
    if (this.#session.closed) return metrics.credentialRefreshes.inc({ result: 'session_ended' })
    if (verdict.ok) this.#believed(verdict)
    else this.#notBelieved(verdict)
  }

  #believed({ deviceId, accountId = '', expiresAtMs }: IdentityVerdict & { ok: true }): void {
    const { clock, metrics } = this.#host
    // A session is one device's with one account from its row on: another identity needs another session.
    if (deviceId !== this.#session.deviceId || accountId !== this.#session.accountId) {
      metrics.credentialRefreshes.inc({ result: 'another_identity' })
      this.#events.refused('UNAUTHENTICATED', 'the credential names another device or account; open a session with it instead')
      this.#session.handle({ type: 'end', kind: closeKinds.authenticationFailed })
      return
    }
    metrics.credentialRefreshes.inc({ result: 'accepted' })
    const remainingMs = expiresAtMs === undefined ? Number.POSITIVE_INFINITY : Math.max(0, expiresAtMs - clock.now())
    this.#events.accepted(clock.monotonic() + remainingMs)
  }

  #notBelieved({ verdict, detail }: IdentityVerdict & { ok: false }): void {
    this.#host.metrics.credentialRefreshes.inc({ result: verdict })
    switch (verdict) {
      case 'invalid':
        this.#events.refused('UNAUTHENTICATED', detail)
        this.#session.handle({ type: 'end', kind: closeKinds.authenticationFailed })
        break
      // What the session has still holds: it goes on until that ends.
      case 'expired':
        this.#events.refused('CREDENTIAL_EXPIRED', detail)
        break
      case 'unavailable':
        this.#events.refused('OVERLOADED', detail)
        break
    }
  }
}
