import { lookup } from 'node:dns/promises'
import { isIP } from 'node:net'
import { experimental, Metadata, status } from '@grpc/grpc-js'
import type { Timer } from './clock.ts'
import { systemClock } from './clock.ts'
import type { HostPort } from './listen-address.ts'
import { formatHostPort, parseAddressList } from './listen-address.ts'

/** Names are looked up at most this often; grpc-js asks whenever a connection ends. */
const lookupIntervalMs = 5_000

const scheme = 'push-addresses'

/** The channel target of a comma list of `host:port`, or of `dns:///name:port`: names and numbers may be mixed. */
export function channelTarget(addresses: string): string {
  registerOnce()
  const parsed = parseAddressList(addresses)
  if (parsed === undefined) throw new TypeError(`"${addresses}" is not host:port[,host:port…] or dns:///name:port`)
  return `${scheme}:///${parsed.map(formatHostPort).join(',')}`
}

let registered = false

function registerOnce(): void {
  if (registered) return
  registered = true
  experimental.registerResolver(scheme, AddressResolver)
}

/** Gives grpc-js the addresses of all hosts of a list. (grpc-js itself takes lists of numeric addresses only.) */
class AddressResolver implements experimental.Resolver {
  readonly #listener: experimental.ResolverListener
  readonly #hosts: readonly HostPort[]
  // A name that cannot be looked up for a while keeps the addresses it had.
  readonly #lastKnown = new Map<string, readonly string[]>()
  #lookedUpAt = Number.NEGATIVE_INFINITY
  #run = 0
  #pending = false
  #timer: Timer | undefined

  constructor(target: experimental.GrpcUri, listener: experimental.ResolverListener) {
    this.#listener = listener
    this.#hosts = parseAddressList(target.path) ?? []
  }

  static getDefaultAuthority(target: experimental.GrpcUri): string {
    return target.path.split(',')[0] ?? target.path
  }

  updateResolution(): void {
    if (this.#pending) return
    this.#pending = true
    const waitMs = this.#lookedUpAt + lookupIntervalMs - systemClock.monotonic()
    this.#timer = systemClock.after(waitMs, () => void this.#lookUp(this.#run))
  }

  destroy(): void {
    this.#run++
    this.#pending = false
    this.#lookedUpAt = Number.NEGATIVE_INFINITY
    this.#timer?.cancel()
  }

  async #lookUp(run: number): Promise<void> {
    const found = await Promise.all(this.#hosts.map((host) => this.#addressesOf(host.host)))
    if (run !== this.#run) return // destroyed meanwhile
    this.#pending = false
    this.#lookedUpAt = systemClock.monotonic()
    const endpoints = this.#hosts.flatMap(({ port }, index) =>
      (found[index] ?? []).map((host) => ({ addresses: [{ host, port }] })),
    )
    this.#listener(
      endpoints.length > 0 ? { ok: true, value: endpoints } : { ok: false, error: this.#nothingFound() },
      {},
      null,
      '',
    )
  }

  async #addressesOf(host: string): Promise<readonly string[]> {
    if (isIP(host) !== 0) return [host]
    try {
      const addresses = (await lookup(host, { all: true })).map((found) => found.address)
      this.#lastKnown.set(host, addresses)
      return addresses
    } catch {
      return this.#lastKnown.get(host) ?? []
    }
  }

  #nothingFound() {
    const names = this.#hosts.map((host) => host.host).join(', ')
    return { code: status.UNAVAILABLE, details: `no address found for ${names}`, metadata: new Metadata() }
  }
}
