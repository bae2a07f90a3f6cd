import { STATUS_CODES } from 'node:http'
import type { Duplex } from 'node:stream'
import type { IdentityVerdict } from './auth/identity.ts'
import { type CloseKind, closeKinds } from './close-codes.ts'
import type { ControlFrame } from './frames.ts'
import type { Refusal } from './handshake.ts'
import type { RetryAfter } from './retry-after.ts'

/** A verdict about the credential, or about its absence. */
export function unauthenticated(reason: 'unauthenticated' | 'expired', message: string): Refusal {
  return { status: 401, reason, message, headers: { 'www-authenticate': 'Bearer' } }
}

/** How a client with a header and a browser are told. 401 and 4500 are verdicts about this credential; trouble of the edge with its keys is 503 and 1013. */
export function disbelief(
  verdict: IdentityVerdict & { ok: false },
  retryAfter: RetryAfter,
): { refusal: Refusal; kind: CloseKind } {
  switch (verdict.verdict) {
    case 'invalid':
      return { refusal: unauthenticated('unauthenticated', verdict.detail), kind: closeKinds.authenticationFailed }
    case 'expired':
      return { refusal: unauthenticated('expired', verdict.detail), kind: closeKinds.credentialExpired }
    case 'unavailable': {
      const headers = { 'retry-after': String(retryAfter.next()) }
      return {
        refusal: { status: 503, reason: 'identity_unavailable', message: verdict.detail, headers },
        kind: closeKinds.tryAgainLater,
      }
    }
  }
}

/** What an `error` frame calls it. */
export function errorReasonOf({ verdict }: IdentityVerdict & { ok: false }): 'OVERLOADED' | 'UNAUTHENTICATED' {
  return verdict === 'unavailable' ? 'OVERLOADED' : 'UNAUTHENTICATED'
}

/** When to come again after a refusal that passes, in ms. */
export function retryMsOf({ headers }: Refusal): number {
  return Number(headers?.['retry-after'] ?? 1) * 1_000
}

/** A refusal that passes, as whoever is let in only to be told hears of it. */
export function goawayOf(refusal: Refusal): ControlFrame {
  const reason = refusal.reason === 'draining' ? 'drain' : 'overload'
  return { type: 'goaway', reason, reconnect_after_ms: retryMsOf(refusal) }
}

/** Answers a handshake on its raw socket, and ends it. */
export function writeRefusal(socket: Duplex, { status, message, headers = {} }: Refusal): void {
  const body = `${message}\n`
  const lines = Object.entries({
    connection: 'close',
    'content-type': 'text/plain',
    'content-length': String(Buffer.byteLength(body)),
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`)
  socket.on('error', ignore)
  // Half-open connections are allowed here: without it one whose client stays would stay as well.
  socket.once('finish', () => socket.destroy())
  socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? 'Error'}\r\n${lines.join('')}\r\n${body}`)
}

function ignore(): void {}
