/** What a device showed, and where: a browser can send no header and shows it as a subprotocol; in a frame comes what shall replace it. */
export interface Credential {
  readonly text: string
  readonly from: 'header' | 'subprotocol' | 'frame'
}

/** Who a device is, or why it is not believed. */
export type IdentityVerdict =
  | {
      readonly ok: true
      readonly deviceId: string
      /** Undefined: logged in to no account. */
      readonly accountId: string | undefined
      /** When the credential expires, in ms since the epoch; undefined: never. */
      readonly expiresAtMs: number | undefined
      /** No new credential keeps the session longer: its client certificate ends then. Set by the edge alone. */
      readonly certificateEndsAtMs?: number
    }
  /** `invalid` and `expired` are about this credential; `unavailable`: nobody's can be judged now. The detail holds nothing of it. */
  | { readonly ok: false; readonly verdict: 'invalid' | 'expired' | 'unavailable'; readonly detail: string }

/** Tells who devices are. */
export interface Identity {
  /** Never rejects. */
  authenticate(credential: Credential): Promise<IdentityVerdict>
}

/** A verdict about this credential. */
export function notBelieved(detail: string): IdentityVerdict {
  return { ok: false, verdict: 'invalid', detail }
}
