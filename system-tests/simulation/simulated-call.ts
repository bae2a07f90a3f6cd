import type { CompatServiceDefinition } from 'nice-grpc'
import type { CallContext, CallOptions } from 'nice-grpc-common'
import { Metadata, Status } from 'nice-grpc-common'
import { anonymous } from '../../service-kit/caller.ts'
import { callerMessage } from '../../service-kit/error-details.ts'
import { toPushError } from '../../service-kit/error-server.ts'
import { CallError, PushError } from '../../service-kit/errors.ts'
import type { ServedContext } from '../../service-kit/grpc-server.ts'
import { Channel } from './channel.ts'
import { type CallFate, hostOf, type Network } from './network.ts'
import type { SimulatedProcess } from './simulated-process.ts'

interface MessageType {
  encode(message: unknown): { finish(): Uint8Array }
  decode(bytes: Uint8Array): unknown
  fromPartial(message: unknown): unknown
}

/** One method of a service, as ts-proto describes it. */
export interface Method {
  readonly service: string
  /** As clients and implementations call it. */
  readonly key: string
  readonly path: string
  readonly requestStream: boolean
  readonly responseStream: boolean
  readonly requestType: MessageType
  readonly responseType: MessageType
}

/** A server that can be called. */
export interface Served {
  readonly process: SimulatedProcess
  readonly services: ReadonlyMap<string, Record<string, unknown>>
  readonly draining: AbortSignal
}

const known = new WeakMap<object, Method[]>()

export function methodsOf(definition: CompatServiceDefinition): Method[] {
  const found = known.get(definition)
  if (found !== undefined) return found
  // Generic definitions, as ts-proto makes them.
  const { fullName, methods } = definition as unknown as {
    fullName: string
    methods: Record<string, Omit<Method, 'service' | 'key' | 'path'> & { name: string }>
  }
  const made = Object.entries(methods).map(([key, { name, requestStream, responseStream, requestType, responseType }]) => {
    const path = `/${fullName}/${name}`
    return { service: fullName, key, path, requestStream, responseStream, requestType, responseType }
  })
  known.set(definition, made)
  return made
}

interface CallFacts {
  readonly network: Network
  readonly process: SimulatedProcess
  readonly method: Method
  readonly request: unknown
  readonly options: CallOptions
  /** Undefined: nobody can be reached. */
  readonly served: Served | undefined
}

/** How interceptors of the server leave the deadline for handlers. */
const deadlineKey = 'push-call-deadline-ms'

/** One call, from its client to a server and back. A unary one is a stream of one each way. */
export class SimulatedCall {
  readonly path: string
  readonly from: string
  readonly to: string
  readonly #facts: CallFacts
  readonly #fate: CallFate
  readonly #answers: Channel<unknown>
  readonly #requests = new Channel<unknown>()
  readonly #serverAbort = new AbortController()
  readonly #endings: (() => void)[] = []
  #response: unknown
  /** What goes one way comes in the order in which it was sent. */
  readonly #toServerQueue: (() => void)[] = []
  readonly #toClientQueue: (() => void)[] = []
  #broken = false
  #ended = false
  #started = false

  constructor(facts: CallFacts) {
    const { network, process, method, served } = facts
    this.#facts = facts
    this.path = method.path
    this.from = hostOf(process)
    this.to = served === undefined ? '' : hostOf(served.process)
    this.#fate = network.fateOf(this.from, this.to)
    this.#answers = new Channel<unknown>()
  }

  onEnd(run: () => void): void {
    this.#endings.push(run)
  }

  isAt(process: SimulatedProcess): boolean {
    return this.#facts.process === process || this.#facts.served?.process === process
  }

  /** What the client gets: responses, and the only one of a unary call as the return value. */
  async *responses(): AsyncGenerator<unknown, unknown, undefined> {
    const { options, method } = this.#facts
    const { signal } = options
    signal?.throwIfAborted()
    const aborted = () => {
      this.#tellServer(() => this.#serverAbort.abort())
      this.#end(signal?.reason)
    }
    signal?.addEventListener('abort', aborted, { once: true })
    this.#start()
    try {
      if (!method.responseStream) {
        for await (const response of this.#answers) this.#response = response
        return this.#response
      }
      yield* this.#answers
      return undefined
    } finally {
      signal?.removeEventListener('abort', aborted)
      if (!this.#ended) {
        // The reader has had enough.
        this.#tellServer(() => this.#serverAbort.abort())
        this.#end(undefined)
      }
    }
  }

  /** The client is told this, at once. */
  fail(error: unknown): void {
    this.#tellServer(() => this.#serverAbort.abort())
    this.#end(error)
  }

  /** The connection under it has broken. */
  broken(): void {
    this.#broken = true
    const { served, process, network } = this.#facts
    network.refused(process, () => this.#end(this.#unavailable('the connection broke')))
    if (served !== undefined) network.refused(served.process, () => this.#serverAbort.abort())
  }

  /** One of the two has died. */
  brokenBy(dead: SimulatedProcess): void {
    const { served, process, network } = this.#facts
    if (dead === served?.process) network.refused(process, () => this.#end(this.#unavailable('the server died')))
    else if (served !== undefined) network.refused(served.process, () => this.#serverAbort.abort())
  }

  #start(): void {
    if (this.#started) return
    this.#started = true
    const { served, process, network, method, request, options } = this.#facts
    if (served === undefined) {
      network.refused(process, () => this.#end(this.#unavailable('no server can be reached')))
      return
    }
    // A dead caller's calls are given up by the network.
    const takeBack = process.onDeath(() => this.brokenBy(process))
    this.onEnd(takeBack)
    if (this.#fate.lost !== undefined) {
      const lostAfterMs = this.#fate.requestMs + this.#fate.answerMs
      network.send(this.from, this.to, lostAfterMs, process, () => this.#end(this.#unavailable('the connection broke')))
      if (this.#fate.lost === 'request') return
    }
    if (method.requestStream) {
      this.#toServer(() => void this.#serve(this.#requests))
      void this.#pump(request as AsyncIterable<unknown>)
    } else {
      const bytes = method.requestType.encode(method.requestType.fromPartial(request)).finish()
      network.world.trace(
        () => `${this.from} → ${this.to} ${this.path}${this.#fate.lost === undefined ? '' : ` (${this.#fate.lost} lost)`}`,
      )
      this.#toServer(() => void this.#serve(method.requestType.decode(bytes)))
    }
    if (options.signal?.aborted) this.fail(options.signal.reason)
  }

  async #pump(requests: AsyncIterable<unknown>): Promise<void> {
    const { requestType } = this.#facts.method
    try {
      for await (const request of requests) {
        if (this.#ended) return
        const bytes = requestType.encode(requestType.fromPartial(request)).finish()
        this.#toServer(() => this.#requests.push(requestType.decode(bytes)))
      }
      this.#toServer(() => this.#requests.end())
    } catch (cause) {
      this.fail(cause)
    }
  }

  /** Runs the implementation, as the server's process. */
  async #serve(request: unknown): Promise<void> {
    const { served, method, options } = this.#facts
    if (served === undefined) return
    const { responseType, responseStream } = method
    const timeoutMs = timeoutOf(options)
    const { clock } = served.process
    const giveUp =
      timeoutMs === undefined
        ? undefined
        : clock.after(timeoutMs, () => {
            this.#serverAbort.abort()
            this.#toClient(() => this.#end(new CallError(this.path, Status.DEADLINE_EXCEEDED, 'the deadline passed')))
          })
    const breakRequests = () => this.#requests.fail(this.#unavailable('the stream broke'))
    this.#serverAbort.signal.addEventListener('abort', breakRequests, { once: true })
    try {
      const implementation = served.services.get(method.service)
      const handler = implementation?.[method.key]
      if (typeof handler !== 'function') throw new PushError('NOT_IMPLEMENTED', `${this.path} is not served`)
      const context = this.#context(served, timeoutMs)
      const result = Reflect.apply(handler, implementation, [request, context])
      if (responseStream) {
        for await (const response of result as AsyncIterable<unknown>) {
          if (this.#serverAbort.signal.aborted) return
          this.#answer(responseType.encode(responseType.fromPartial(response)).finish())
        }
      } else {
        this.#answer(responseType.encode(responseType.fromPartial(await result)).finish())
      }
      this.#toClient(() => this.#end(undefined))
    } catch (error) {
      if (this.#serverAbort.signal.aborted) return
      this.#toClient(() => this.#end(this.#told(error, served)))
    } finally {
      giveUp?.cancel()
      this.#serverAbort.signal.removeEventListener('abort', breakRequests)
    }
  }

  #answer(bytes: Uint8Array): void {
    const { responseType } = this.#facts.method
    this.#toClient(() => this.#answers.push(responseType.decode(bytes)))
  }

  #context(served: Served, timeoutMs: number | undefined) {
    const { options } = this.#facts
    const metadata = Metadata(options.metadata)
    if (timeoutMs !== undefined) metadata.set(deadlineKey, String(served.process.clock.now() + timeoutMs))
    const header = Metadata()
    const abort = this.#serverAbort
    const context: CallContext & ServedContext = {
      // As on servers without certificates.
      caller: anonymous,
      metadata,
      peer: this.from,
      header,
      sendHeader: () => this.#toClient(() => options.onHeader?.(header)),
      trailer: Metadata(),
      signal: abort.signal,
      abortOnTerminate() {
        if (served.draining.aborted) abort.abort()
        else served.draining.addEventListener('abort', () => abort.abort(), { once: true })
      },
    }
    return context
  }

  /** The error as the caller's client reads it from the trailer. */
  #told(error: unknown, served: Served): unknown {
    if (error instanceof CallError) return error
    const told = toPushError(error)
    if (told.reason === 'INTERNAL')
      served.process.log.error('call failed by a defect', { method: this.path, cause: told.cause ?? told })
    const { reason, metadata, violations, retryAfterMs } = told
    return new CallError(this.path, told.status, callerMessage(told.message), { reason, metadata, violations, retryAfterMs })
  }

  #unavailable(why: string): CallError {
    return new CallError(this.path, Status.UNAVAILABLE, why)
  }

  #toServer(run: () => void): void {
    const { served, network } = this.#facts
    if (served === undefined) return
    this.#toServerQueue.push(run)
    network.send(this.from, this.to, this.#fate.requestMs, served.process, () => {
      const next = this.#toServerQueue.shift()
      if (!this.#broken && !this.#serverAbort.signal.aborted) next?.()
    })
  }

  #toClient(run: () => void): void {
    const { process, network, served } = this.#facts
    if (this.#fate.lost === 'answer' || served?.process.alive !== true) return
    this.#toClientQueue.push(run)
    network.send(this.to, this.from, this.#fate.answerMs, process, () => {
      const next = this.#toClientQueue.shift()
      if (!this.#broken && !this.#ended) next?.()
    })
  }

  #tellServer(run: () => void): void {
    if (this.#started && !this.#ended) this.#toServer(run)
  }

  #end(error: unknown): void {
    if (this.#ended) return
    this.#ended = true
    if (error === undefined) this.#answers.end()
    else this.#answers.fail(error)
    for (const run of this.#endings) run()
  }
}

/** From `grpc-timeout`, which the real client puts there. */
function timeoutOf(options: CallOptions): number | undefined {
  const text = Metadata(options.metadata).get('grpc-timeout')
  if (text === undefined) return undefined
  const value = Number.parseInt(text, 10)
  return text.endsWith('S') ? value * 1000 : value
}
