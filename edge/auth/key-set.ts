import { createLocalJWKSet, errors, type JSONWebKeySet, type JWTVerifyGetKey, type LocalJWKSet } from 'jose'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Random } from '../../service-kit/random.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import { KeyUnavailableError } from './jwt.ts'

/** The public keys of the issuer of tokens. */
export interface KeySet {
  /** The key that a token names. Throws KeyUnavailableError while it cannot be had, and jose's errors when there is none. */
  readonly keyOf: JWTVerifyGetKey
  /** Asks the issuer now, or joins who does. Resolves with whether a set came. Never rejects. */
  look(): Promise<boolean>
  close(): void
}

export interface KeySetOptions {
  /** Where the issuer serves its set, as JSON (RFC 7517). */
  readonly url: string
  /** How often the set is fetched again, in ms; each time up to a tenth sooner. */
  readonly refreshMs: number
  /** Least time between two fetches, in ms, whatever tokens name. */
  readonly cooldownMs: number
  /** For one fetch, in ms. */
  readonly timeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Pick<EdgeMetrics, 'jwksFetches' | 'jwksLookups' | 'jwksKeys' | 'jwksFetchTime'>
}

const setLimitBytes = 256 * 1024
const keysMax = 100
const keyTypes: ReadonlySet<unknown> = new Set(['RSA', 'EC', 'OKP'])

/**
 * Keeps an issuer's keys at hand: fetched at once, now and then, and when a token names a key that is not among them. While the issuer does not
 * answer, the last set that came stays in force, however old it is.
 */
export function openKeySet(options: KeySetOptions): KeySet {
  const { url, refreshMs, cooldownMs, timeoutMs, clock, random, log, metrics } = options
  const closing = new AbortController()
  // Whatever stands in the query may be meant for the issuer alone.
  const shownUrl = url.replace(/[?#].*$/s, '')
  let keys: LocalJWKSet | undefined
  let inForce = ''
  let fetching: Promise<boolean> | undefined
  let fetchedAt = Number.NEGATIVE_INFINITY
  let timer: Timer | undefined

  const take = async (): Promise<void> => {
    const text = await fetchText(url, timeoutMs, clock, closing.signal)
    const set = readKeySet(text)
    const next = createLocalJWKSet(set)
    metrics.jwksKeys.set(set.keys.length)
    metrics.jwksFetchTime.set(clock.now() / 1_000)
    keys = next
    const changed = JSON.stringify(set)
    if (changed === inForce) return
    inForce = changed
    log.info('keys of the token issuer are in force', { url: shownUrl, key_count: set.keys.length })
  }

  const fetchOnce = async (): Promise<boolean> => {
    timer?.cancel()
    let taken = false
    try {
      await take()
      taken = true
    } catch (cause) {
      if (closing.signal.aborted) return false
      log.warn('keys of the token issuer could not be fetched', { url: shownUrl, has_older_keys: keys !== undefined, cause })
    }
    metrics.jwksFetches.inc({ result: taken ? 'taken' : 'failed' })
    fetchedAt = clock.monotonic()
    // At random, so that edges which started together do not ask together.
    const waitMs = taken ? refreshMs * (1 - random.next() / 10) : cooldownMs * (1 + random.next())
    if (!closing.signal.aborted) timer = clock.after(Math.min(waitMs, refreshMs), () => void look())
    return taken
  }

  function look(): Promise<boolean> {
    if (closing.signal.aborted) return Promise.resolve(false)
    fetching ??= fetchOnce().finally(() => {
      fetching = undefined
    })
    return fetching
  }

  const unavailable = (result: 'no_keys' | 'cooldown' | 'issuer_away') => {
    metrics.jwksLookups.inc({ result })
    return new KeyUnavailableError('the keys of the token issuer cannot be had now')
  }

  const keyOf: JWTVerifyGetKey = async (header, token) => {
    try {
      if (keys !== undefined) {
        const key = await keys(header, token)
        metrics.jwksLookups.inc({ result: 'found' })
        return key
      }
    } catch (error) {
      // Whoever names keys at random makes no edge ask more often than the cool-down lets it.
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
    }
    const joined = fetching !== undefined
    // A key may be newer than what was fetched: that it is not known yet is no verdict about its token.
    if (!joined && clock.monotonic() - fetchedAt < cooldownMs) throw unavailable(keys === undefined ? 'no_keys' : 'cooldown')
    if (!(await look()) || keys === undefined) throw unavailable('issuer_away')
    try {
      const key = await keys(header, token)
      metrics.jwksLookups.inc({ result: 'fetched' })
      return key
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
      // That fetch may have begun before the key was there.
      if (joined) throw unavailable('cooldown')
      metrics.jwksLookups.inc({ result: 'unknown' })
      throw error
    }
  }

  void look()
  return {
    keyOf,
    look,
    close() {
      closing.abort()
      timer?.cancel()
    },
  }
}

/** Throws when there is no answer in time, another one than 200, or a larger one than a set may be. */
async function fetchText(url: string, timeoutMs: number, clock: Clock, closing: AbortSignal): Promise<string> {
  const ending = new AbortController()
  const timer = clock.after(timeoutMs, () => ending.abort(new Error(`no answer within ${timeoutMs} ms`)))
  const signal = AbortSignal.any([ending.signal, closing])
  try {
    // An issuer that moves has to be told to the operator, not followed.
    const response = await fetch(url, { signal, redirect: 'error', headers: { accept: 'application/json' } })
    if (response.status !== 200 || response.body === null) {
      await response.body?.cancel()
      throw new Error(`the answer has status ${response.status}`)
    }
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of response.body) {
      size += chunk.length
      if (size > setLimitBytes) throw new Error(`the answer is larger than ${setLimitBytes} bytes`)
      chunks.push(chunk)
    }
    return Buffer.concat(chunks).toString('utf8')
  } finally {
    timer.cancel()
  }
}

/** The public keys of a set. Throws when there is none: no issuer means that no token is valid any more. */
function readKeySet(text: string): JSONWebKeySet {
  const set: unknown = JSON.parse(text)
  const listed: unknown = typeof set === 'object' && set !== null && 'keys' in set ? set.keys : undefined
  if (!Array.isArray(listed)) throw new Error('the answer is no key set')
  if (listed.length > keysMax) throw new Error(`the set has more than ${keysMax} keys`)
  const keys = listed.filter((key) => typeof key === 'object' && key !== null && keyTypes.has(key.kty))
  if (keys.length === 0) throw new Error('the set has no public key')
  return { keys }
}
