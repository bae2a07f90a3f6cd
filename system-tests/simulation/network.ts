import type { CompatServiceDefinition } from 'nice-grpc'
import type { CallOptions } from 'nice-grpc-common'
import { Status } from 'nice-grpc-common'
import { type CallBounds, callBoundsMiddleware } from '../../service-kit/call-bounds.ts'
import { CallError } from '../../service-kit/errors.ts'
import type { GrpcClientOptions, GrpcConnection } from '../../service-kit/grpc-client.ts'
import type { GrpcServer, GrpcServerOptions } from '../../service-kit/grpc-server.ts'
import { type Method, methodsOf, type Served, SimulatedCall } from './simulated-call.ts'
import { processOf, type SimulatedProcess } from './simulated-process.ts'
import type { World } from './world.ts'

/** What becomes of one call on its way. */
export interface CallFate {
  /** `request`: it never arrives. `answer`: it is carried out, and nobody hears of it. The caller is told UNAVAILABLE of both. */
  readonly lost?: 'request' | 'answer'
  /** How long the request takes, ms. */
  readonly requestMs: number
  readonly answerMs: number
}

interface Listener extends Served {
  readonly address: string
}

/** A pair of processes that cannot reach one another; what they send waits until they can, or until the connection is given up. */
interface Cut {
  readonly waiting: (() => void)[]
  givenUp: boolean
}

/** How long a silent connection is believed in, ms. */
const keepaliveMs = 4_000
/** How long it takes to find out that nobody listens, ms. */
const refusedMs = 1

/**
 * Calls between processes of the simulation. It stands in for gRPC's channels and servers: requests and answers are encoded and decoded, errors reach
 * the caller as its client would map them, deadlines and retries are those of the real client.
 */
export class Network {
  readonly world: World
  readonly #listeners = new Map<string, Listener>()
  readonly #cuts = new Map<string, Cut>()
  readonly #calls = new Set<SimulatedCall>()
  /** Decides what becomes of calls; until told otherwise nothing goes wrong. */
  fateOf: (from: string, to: string) => CallFate

  constructor(world: World) {
    this.world = world
    this.fateOf = () => ({ requestMs: world.between(0.1, 1), answerMs: world.between(0.1, 1) })
  }

  /** In place of `connectGrpc`. */
  connect(options: GrpcClientOptions): GrpcConnection {
    const process = processOf(options.clock)
    const { retryBaseMs = 50, retryCapMs = 1_000 } = options
    const addresses = options.addresses.split(',')
    const bound = callBoundsMiddleware({
      clock: options.clock,
      random: options.random ?? process.random,
      metrics: options.metrics ?? process.metrics,
      retryBaseMs,
      retryCapMs,
    })
    const open = new Set<SimulatedCall>()
    let turn = Math.floor(this.world.random.next() * addresses.length)
    let closed = false

    const start = (method: Method, request: unknown, callOptions: CallOptions) => {
      const target = closed ? undefined : this.#reachable(process, addresses, turn++)
      const call = new SimulatedCall({ network: this, process, method, request, options: callOptions, served: target })
      open.add(call)
      this.#calls.add(call)
      call.onEnd(() => {
        open.delete(call)
        this.#calls.delete(call)
      })
      return call
    }

    return {
      client: (definition: CompatServiceDefinition) => {
        const client: Record<string, unknown> = {}
        for (const method of methodsOf(definition)) {
          const { requestStream, responseStream, path } = method
          const run = (request: unknown, callOptions: CallOptions & CallBounds = {}) =>
            bound(
              {
                requestStream,
                responseStream,
                method: { path, requestStream, responseStream, options: {} },
                request,
                next: (sent: unknown, nextOptions: CallOptions) => start(method, sent, nextOptions).responses(),
              } as never,
              callOptions,
            )
          client[method.key] = responseStream
            ? run
            : async (request: unknown, options: CallOptions) => lastOf(run(request, options))
        }
        return client as never
      },
      waitReady: async () => {},
      close() {
        closed = true
        for (const call of [...open]) call.fail(new CallError(call.path, Status.CANCELLED, 'the connection was closed'))
      },
    }
  }

  /** In place of `serveGrpc`. */
  serve(options: GrpcServerOptions): GrpcServer {
    const process = processOf(options.clock)
    const services = new Map<string, Record<string, unknown>>()
    const server = {
      add(definition: CompatServiceDefinition, implementation: Record<string, unknown>) {
        services.set(methodsOf(definition)[0]?.service ?? '', implementation)
      },
    }
    options.services(server as never)
    const draining = new AbortController()
    const { address } = options
    const listener: Listener = { address, process, services, draining: draining.signal }
    this.#listeners.set(address, listener)
    const leave = () => {
      if (this.#listeners.get(address) === listener) this.#listeners.delete(address)
    }
    process.onDeath(() => {
      leave()
      for (const call of [...this.#calls]) if (call.isAt(process)) call.brokenBy(process)
    })
    return {
      address,
      draining: draining.signal,
      setServing() {},
      async drain() {
        draining.abort()
        leave()
      },
    }
  }

  /** From now on nothing gets through between them. */
  cut(one: string, other: string): void {
    const key = pairOf(one, other)
    if (this.#cuts.has(key)) return
    this.world.trace(() => `the link between ${key} is cut`)
    const cut: Cut = { waiting: [], givenUp: false }
    this.#cuts.set(key, cut)
    this.world.time.after(keepaliveMs, undefined, () => {
      if (this.#cuts.get(key) !== cut) return
      cut.givenUp = true
      cut.waiting.length = 0
      this.reset(one, other)
    })
  }

  heal(one: string, other: string): void {
    const key = pairOf(one, other)
    const cut = this.#cuts.get(key)
    if (cut === undefined) return
    this.world.trace(() => `the link between ${key} is whole again`)
    this.#cuts.delete(key)
    for (const run of cut.waiting) run()
  }

  healAll(): void {
    for (const key of [...this.#cuts.keys()]) {
      const [one = '', other = ''] = key.split(' and ')
      this.heal(one, other)
    }
  }

  /** The connection between them breaks: all calls on it fail, and what is under way is lost. They may connect again at once. */
  reset(one: string, other: string): void {
    this.world.trace(() => `connections between ${pairOf(one, other)} break`)
    for (const call of [...this.#calls]) if (pairOf(call.from, call.to) === pairOf(one, other)) call.broken()
  }

  /** Sends something on its way; where the link is cut it waits there. */
  send(from: string, to: string, delayMs: number, process: SimulatedProcess, run: () => void): void {
    const cut = this.#cuts.get(pairOf(from, to))
    if (cut === undefined) {
      this.world.time.after(delayMs, process, run)
      return
    }
    if (!cut.givenUp) cut.waiting.push(() => this.world.time.after(delayMs, process, run))
  }

  refused(process: SimulatedProcess, run: () => void): void {
    this.world.time.after(refusedMs, process, run)
  }

  #reachable(process: SimulatedProcess, addresses: readonly string[], turn: number): Listener | undefined {
    for (let at = 0; at < addresses.length; at++) {
      const listener = this.#listeners.get(addresses[(turn + at) % addresses.length] ?? '')
      if (listener === undefined || !listener.process.alive) continue
      if (this.#cuts.get(pairOf(hostOf(process), hostOf(listener.process)))?.givenUp !== true) return listener
    }
    return undefined
  }
}

/** A process's place in the network, which its next start takes over. */
export function hostOf(process: SimulatedProcess): string {
  return process.name.split('#')[0] ?? process.name
}

function pairOf(one: string, other: string): string {
  return one < other ? `${one} and ${other}` : `${other} and ${one}`
}

async function lastOf(responses: AsyncGenerator<unknown, unknown, undefined>): Promise<unknown> {
  const { value } = await responses.next()
  return value
}
