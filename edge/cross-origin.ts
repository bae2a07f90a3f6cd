import type { IncomingMessage, ServerResponse } from 'node:http'

const preflightAgeSeconds = 600
const sentByAnotherSite: ReadonlySet<string | string[]> = new Set(['cross-site', 'same-site'])

/**
 * What pages of other origins are told; `allowed` is false for a page that may not connect. Without an origin there is no page, or one of this origin;
 * or a request that another site made a browser send without its asking (an image, a link): it would go with the device's certificate.
 */
export function originOf(
  { headers }: IncomingMessage,
  allowedOrigins: readonly string[],
): { readonly allowed: boolean; readonly headers: Record<string, string> } {
  const { origin } = headers
  if (origin === undefined) return { allowed: !sentByAnotherSite.has(headers['sec-fetch-site'] ?? ''), headers: {} }
  const allowed = allowedOrigins.includes(origin)
  if (!allowed) return { allowed, headers: { vary: 'origin' } }
  const headersOfPage = {
    'access-control-allow-origin': origin,
    // A certificate counts as one: an EventSource with `withCredentials` shows it.
    'access-control-allow-credentials': 'true',
    'access-control-expose-headers': 'retry-after',
    vary: 'origin',
  }
  return { allowed, headers: headersOfPage }
}

/** Answers a browser that asks, before the request itself, whether a page may send it. */
export function answerPreflight(method: string, cors: Record<string, string>, response: ServerResponse): void {
  response.writeHead(204, {
    ...cors,
    'access-control-allow-methods': method,
    'access-control-allow-headers': 'authorization, cache-control, content-type, last-event-id',
    'access-control-max-age': String(preflightAgeSeconds),
  })
  response.end()
}
