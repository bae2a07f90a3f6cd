import type { Clock, Timer } from './clock.ts'
import type { Random } from './random.ts'

/** Shows the edge a new credential in good time before the one of the session expires. */
export interface CredentialRefresh {
  /** The edge has said when the session's credential expires; both in microseconds by its clock. Undefined: never. */
  expires(expireTime: number | undefined, serverTime: number): void
  /** The edge has sent an error. */
  refused(reason: string): void
  stop(): void
}

export interface CredentialRefreshOptions {
  /** Asks the app for a credential. May reject. */
  readonly token: () => Promise<string>
  readonly send: (token: string) => void
  readonly clock: Clock
  readonly random: Random
  /** How long before the end a new one is asked for, at least; a quarter of the whole where that is shorter. */
  readonly aheadMs: number
  /** From one attempt to the next. */
  readonly retryMs: number
  readonly problem: (reason: string, message: string) => void
}

export function createCredentialRefresh(options: CredentialRefreshOptions): CredentialRefresh {
  const { clock, random, aheadMs, retryMs } = options
  let timer: Timer | undefined
  let state: 'idle' | 'asking' | 'sent' | 'stopped' = 'idle'
  let refreshed = false

  function plan(waitMs: number): void {
    timer?.cancel()
    timer = clock.after(waitMs, () => void refresh())
  }

  async function refresh(): Promise<void> {
    // Only a token function that outlasts the retry gets here while it is asked: one answer is enough.
    if (state === 'asking') return plan(retryMs)
    state = 'asking'
    let token: string | undefined
    try {
      token = await options.token()
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error)
      if (!isStopped()) options.problem('TOKEN_FAILED', `no new token came before the old one ends: ${words}`)
    }
    if (isStopped()) return
    state = token === undefined ? 'idle' : 'sent'
    // Answered or not: once accepted, the next one is planned by its own end.
    plan(retryMs)
    if (token !== undefined) options.send(token)
  }

  function isStopped(): boolean {
    return state === 'stopped'
  }

  function stop(): void {
    state = 'stopped'
    timer?.cancel()
  }

  return {
    expires(expireTime, serverTime) {
      if (isStopped()) return
      timer?.cancel()
      if (state === 'sent') {
        state = 'idle'
        refreshed = true
      }
      // An app may give the same token again for as long as it holds: that is no reason to ask it all the time.
      const leastMs = refreshed ? retryMs : 0
      if (expireTime === undefined) return
      const remainingMs = Math.max(0, (expireTime - serverTime) / 1_000)
      const aheadOfEndMs = Math.min(aheadMs, remainingMs / 4)
      // At random, so that devices which came together do not ask together.
      plan(Math.max(leastMs, remainingMs - aheadOfEndMs * (1 + random.next())))
    },
    refused(reason) {
      // An edge that knows no such frame, or has nothing to refresh: the session ends with its credential, and the next one begins with a new one.
      if (state === 'sent' && (reason === 'UNKNOWN_TYPE' || reason === 'INVALID_FRAME')) stop()
    },
    stop,
  }
}
