import type { Clock } from '../../service-kit/clock.ts'
import type { Random } from '../../service-kit/random.ts'
import { fullLevel, hasTokens, type TokenLevel, type TokenRate, takeToken } from '../../service-kit/token-bucket.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { Refusal, RefusalReason } from '../handshake.ts'
import { type RetryAfter, retryAfterSeconds } from '../retry-after.ts'
import { addressKey } from './address-key.ts'
import { type AddressEntry, AddressTable, hearingsOfAddress, refusedPerAddressMax } from './address-table.ts'
import type { PortLimits } from './port-limits.ts'

/** One connection, from its arrival to its end. */
export interface Visit {
  /** Who it is, for logs. */
  readonly address: string
  /** Why it is not let in; undefined when it is. */
  readonly refusal: Refusal | undefined
  /** Refused, and nobody has time to hear what it asks for. */
  readonly cut: boolean
  /**
   * To be called for each request: says why it is not answered. The first of a connection is judged by what its address has done meanwhile; each further
   * one costs what a connection costs, unless the one before it was authenticated.
   */
  request(): Refusal | undefined
  /** Its credential holds. */
  authenticated(): void
  /** It was no waste: a health check, or turned away by no fault of its own. */
  succeeded(): void
  /** It was a waste, and counts against its address at once. One that leaves without any of the two is a waste too. */
  failed(): void
  /** Its socket is closed. Twice does nothing. */
  leave(): void
}

export interface Admission {
  /** Counts a connection and judges it, before anything is read from it. `source`: the client; undefined when a proxy speaks for itself. */
  arrive(source: string | undefined, peer: string): Visit
  /** Addresses that are remembered. */
  readonly addressCount: number
}

export interface AdmissionOptions {
  readonly limits: () => PortLimits
  /** For refusals that are no fault of the address. */
  readonly retryAfter: RetryAfter
  readonly clock: Clock
  readonly random: Random
  readonly metrics: Pick<EdgeMetrics, 'addresses' | 'addressesForgotten' | 'addressFailures' | 'refusedConnections'>
}

export function createAdmission(options: AdmissionOptions): Admission {
  return new Gatekeeper(options)
}

class Gatekeeper implements Admission {
  readonly #options: AdmissionOptions
  readonly #table: AddressTable
  readonly #connects: TokenLevel
  // How many refused ones may still be heard.
  readonly #hearings: TokenLevel
  #heardCount = 0

  constructor(options: AdmissionOptions) {
    this.#options = options
    this.#table = new AddressTable(options.limits, options.metrics)
    const { connects, refusedSocketsMax } = options.limits()
    const nowMs = options.clock.monotonic()
    this.#connects = fullLevel(connects, nowMs)
    this.#hearings = fullLevel(hearingsOfAll(refusedSocketsMax), nowMs)
  }

  get addressCount(): number {
    return this.#table.size
  }

  arrive(source: string | undefined, peer: string): Visit {
    const limits = this.#options.limits()
    // The health checks of a proxy that is known.
    if (source === undefined) return new Arrival(this, peer, undefined, undefined, false)
    const nowMs = this.#options.clock.monotonic()
    const entry = limits.unlimitedAddresses.has(source) ? undefined : this.#table.take(addressKey(source), nowMs)
    const refusal = this.judge(entry, { isConnection: true, pays: true })
    const heard = refusal !== undefined && this.#hears(entry, limits, nowMs)
    if (heard) this.#options.metrics.refusedConnections.set(++this.#heardCount)
    if (entry !== undefined && refusal === undefined) entry.connections++
    if (entry !== undefined && heard) entry.refused++
    return new Arrival(this, source, entry, refusal, heard)
  }

  /** Why no connection, or no request, of this address may pass now. */
  judge(entry: AddressEntry | undefined, { isConnection, pays }: { isConnection: boolean; pays: boolean }): Refusal | undefined {
    const limits = this.#options.limits()
    const nowMs = this.#options.clock.monotonic()
    if (entry !== undefined) {
      const ofAddress = (reason: RefusalReason, message: string, { ratePerSecond }: TokenRate): Refusal => {
        const seconds = retryAfterSeconds(entry.backlog, { nowMs, random: this.#options.random, ratePerSecond })
        return { status: 429, reason, message, headers: { 'retry-after': String(seconds) } }
      }
      const rate = limits.addressConnects
      if (isConnection && entry.connections >= limits.addressConnectionLimit)
        return ofAddress('address_connections', 'too many connections from this address', rate)
      if (pays && !takeToken(entry.connects, rate, nowMs))
        return ofAddress('address_rate', 'this address connects too often', rate)
      if (!hasTokens(entry.failures, limits.addressFailures, nowMs))
        return ofAddress('address_failures', 'too many connections from this address failed', limits.addressFailures)
    }
    if (!pays || takeToken(this.#connects, limits.connects, nowMs)) return undefined
    const headers = { 'retry-after': String(this.#options.retryAfter.next()) }
    return { status: 503, reason: 'rate', message: 'too many devices connect at once', headers }
  }

  /** Whether one that is refused may say what it wants: so many at once and a second, so that refusing costs less than letting in. */
  #hears(entry: AddressEntry | undefined, { refusedSocketsMax }: PortLimits, nowMs: number): boolean {
    if (this.#heardCount >= refusedSocketsMax) return false
    if (entry !== undefined && (entry.refused >= refusedPerAddressMax || !takeToken(entry.hearings, hearingsOfAddress, nowMs)))
      return false
    return takeToken(this.#hearings, hearingsOfAll(refusedSocketsMax), nowMs)
  }

  failed(entry: AddressEntry): void {
    this.#options.metrics.addressFailures.inc()
    // One that ends when the bucket is empty already makes it no emptier.
    takeToken(entry.failures, this.#options.limits().addressFailures, this.#options.clock.monotonic())
  }

  left(entry: AddressEntry | undefined, { let: letIn, heard }: { let: boolean; heard: boolean }): void {
    if (heard) this.#options.metrics.refusedConnections.set(--this.#heardCount)
    if (entry === undefined) return
    if (letIn) entry.connections--
    if (heard) entry.refused--
    this.#table.release(entry, this.#options.clock.monotonic())
  }
}

/** As many a second as at once. */
function hearingsOfAll(refusedSocketsMax: number): TokenRate {
  return { ratePerSecond: refusedSocketsMax, burst: refusedSocketsMax }
}

/** A class, as each session keeps one for as long as it lives. */
class Arrival implements Visit {
  readonly address: string
  readonly refusal: Refusal | undefined
  readonly #gatekeeper: Gatekeeper
  readonly #entry: AddressEntry | undefined
  readonly #heard: boolean
  #judged: boolean
  #asked = false
  #trusted = false
  #left = false

  constructor(
    gatekeeper: Gatekeeper,
    address: string,
    entry: AddressEntry | undefined,
    refusal: Refusal | undefined,
    heard: boolean,
  ) {
    this.#gatekeeper = gatekeeper
    this.address = address
    this.#entry = entry
    this.refusal = refusal
    this.#heard = heard
    this.#judged = refusal !== undefined
  }

  get cut(): boolean {
    return this.refusal !== undefined && !this.#heard
  }

  request(): Refusal | undefined {
    if (this.refusal !== undefined) return this.refusal
    if (this.#trusted) return undefined
    const pays = this.#asked
    this.#asked = true
    return this.#gatekeeper.judge(this.#entry, { isConnection: false, pays })
  }

  authenticated(): void {
    this.#judged = true
    this.#trusted = true
  }

  succeeded(): void {
    this.#judged = true
  }

  failed(): void {
    this.#judged = true
    this.#trusted = false
    if (this.#entry !== undefined && this.refusal === undefined) this.#gatekeeper.failed(this.#entry)
  }

  leave(): void {
    if (this.#left) return
    this.#left = true
    if (!this.#judged) this.failed()
    this.#gatekeeper.left(this.#entry, { let: this.refusal === undefined, heard: this.#heard })
  }
}
