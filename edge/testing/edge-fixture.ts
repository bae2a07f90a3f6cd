import { Metadata } from 'nice-grpc-common'
import { test as base, expect } from 'vitest'
import { WebSocket } from 'ws'
import type { DeepPartial, DeliverRequest, DeliverResponse, Outcome, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { EdgeServiceDefinition } from '../../gen/push/internal/v1/edge.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { createClosers } from '../../service-kit/closers.ts'
import { connectGrpc, type GrpcConnection } from '../../service-kit/grpc-client.ts'
import { openLiveConfig, type ReloadableConfig } from '../../service-kit/live-config.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics, type Metrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { type RecordingLog, recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { type EdgeConfig, edgeConfig } from '../config.ts'
import { type RunningEdge, startEdge } from '../server.ts'
import { type FakePlane, serveFakePlane } from './fake-plane.ts'
import { clientFrameBytes, serverFrameOf } from './frame-forms.ts'
import { openSocketTurns } from './socket-turns.ts'

/** A device's side of one WebSocket. */
export interface TestDevice {
  readonly webSocket: WebSocket
  /** Parsed frames so far. */
  readonly frames: Record<string, unknown>[]
  /** Code and reason, once it is closed. */
  readonly closed: Promise<{ code: number; reason: string }>
  /** Resolves with the first frame of this type that was not taken before. */
  next(type: string): Promise<Record<string, unknown>>
  send(frame: object): void
}

/** A router's stream. */
export interface TestRouter {
  readonly outcomes: Outcome[]
  readonly answers: DeliverResponse[]
  /** How the stream ended. */
  readonly ended: Promise<unknown>
  send(request: DeepPartial<DeliverRequest>): void
  /** Kinds of the outcomes of one delivery, waited for until there are `count`. */
  kinds(deliveryId: number, count?: number): Promise<OutcomeKind[]>
  breakOff(): void
}

export interface ConnectOptions {
  query?: string
  autoPong?: boolean
  /** Subprotocols; JSON alone when left out. */
  offered?: string[]
}

export interface EdgeFixture {
  readonly plane: FakePlane
  readonly clock: SteeredClock
  readonly log: RecordingLog
  readonly metrics: Metrics
  start(env?: Record<string, string>): Promise<RunningEdge>
  /** Changes settings as SIGHUP does. */
  reload(env: Record<string, string>): void
  /** Stops the edge as SIGTERM does. */
  stop(): Promise<void>
  url(path?: string): string
  /** Starts to connect as a device; `credential` as after `Bearer `. */
  connect(credential: string, options?: ConnectOptions): TestDevice
  /** Connects and waits for `welcome`; returns the session id too. */
  open(credential: string, options?: ConnectOptions): Promise<TestDevice & { sessionId: string }>
  router(edgeId?: string): TestRouter
  metric(name: string, labels?: Record<string, string>): Promise<number | undefined>
  /** Lets time pass while real sockets get their turn. */
  pass(ms: number): Promise<void>
  /** Lets time pass until this is settled. */
  passUntil<T>(settled: Promise<T>): Promise<T>
}

/** An edge on port 0 with a registry and a router of its own, on a clock that stands still. */
export const test = base.extend<{ edge: EdgeFixture }>({
  // biome-ignore lint/correctness/noEmptyPattern: vitest reads what a fixture needs from this pattern.
  edge: async ({}, use) => {
    const plane = await serveFakePlane()
    const turns = await openSocketTurns()
    const clock = new SteeredClock()
    const log = recordingLog()
    const metrics = createMetrics()
    const closers = createClosers(log, systemClock)
    const webSockets: WebSocket[] = []
    const connections: GrpcConnection[] = []
    let running: RunningEdge | undefined
    let current: Record<string, string> = {}
    let settings: ReloadableConfig<EdgeConfig> | undefined
    let stopped: Promise<void> | undefined

    const edge = (): RunningEdge => {
      if (running === undefined) throw new Error('the edge is not started')
      return running
    }

    const connect: EdgeFixture['connect'] = (credential, { query = '', autoPong = true, offered = ['push.v1.json'] } = {}) => {
      const headers = { authorization: `Bearer ${credential}` }
      const url = `ws://${edge().deviceAddress}/v1/connect${query}`
      const webSocket = new WebSocket(url, offered, { headers, autoPong })
      webSockets.push(webSocket)
      return deviceOn(webSocket)
    }

    const fixture: EdgeFixture = {
      plane,
      clock,
      log,
      metrics,
      async start(env = {}) {
        current = {
          EDGE_LISTEN_ADDRESS: '127.0.0.1:0',
          EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
          EDGE_REGISTRY_ADDRESSES: plane.address,
          EDGE_ROUTER_ADDRESSES: plane.address,
          ...env,
        }
        settings = openLiveConfig(edgeConfig, () => current, { log, metrics })
        running = await startEdge({ config: settings.current, settings, clock, random: seededRandom(7), log, metrics, closers })
        return running
      },
      reload(env) {
        current = { ...current, ...env }
        settings?.reload()
      },
      stop() {
        stopped ??= closers.close({ graceMs: 30_000 }).then(({ late }) => expect(late).toEqual([]))
        return stopped
      },
      url: (path = '/v1/connect') => `http://${edge().deviceAddress}${path}`,
      connect,
      async open(credential, options) {
        const device = connect(credential, options)
        const { session_id: sessionId } = await device.next('welcome')
        return { ...device, sessionId: String(sessionId) }
      },
      router(edgeId = edge().edgeId) {
        const connection = connectGrpc({ addresses: edge().address, log: silentLog, clock: systemClock })
        connections.push(connection)
        return routerOn(connection, edgeId)
      },
      metric: (name, labels) => metricValue(metrics, name, labels),
      async pass(ms) {
        for (let left = ms; left > 0; left -= 500) {
          await clock.advance(Math.min(500, left))
          await turns.pass(3)
        }
        await turns.pass(20)
      },
      async passUntil(settled) {
        let over = false
        const end = () => {
          over = true
        }
        settled.then(end, end)
        while (!over) await fixture.pass(500)
        return settled
      },
    }

    await use(fixture)
    for (const webSocket of webSockets) webSocket.terminate()
    // What the edge waits for while it stops is time on the steered clock.
    await fixture.passUntil(fixture.stop())
    for (const connection of connections) connection.close()
    await plane.close()
    turns.close()
    expect(clock.pendingTimers, 'timers left over').toBe(0)
  },
})

function deviceOn(webSocket: WebSocket): TestDevice {
  const frames: Record<string, unknown>[] = []
  const taken = new Set<Record<string, unknown>>()
  webSocket.on('message', (data, isBinary) => frames.push(serverFrameOf(data as Buffer, isBinary)))
  webSocket.on('error', () => {})
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    webSocket.on('close', (code, reason) => resolve({ code, reason: reason.toString() }))
  })
  return {
    webSocket,
    frames,
    closed,
    async next(type) {
      const find = () => frames.find((frame) => frame.type === type && !taken.has(frame))
      await expect.poll(() => find() !== undefined, { message: `a ${type} frame`, interval: 5 }).toBe(true)
      const frame = find() ?? {}
      taken.add(frame)
      return frame
    },
    send: (frame) => webSocket.send(webSocket.protocol === 'push.v1.json' ? JSON.stringify(frame) : clientFrameBytes(frame)),
  }
}

function routerOn(connection: GrpcConnection, edgeId: string): TestRouter {
  const requests: DeepPartial<DeliverRequest>[] = []
  const outcomes: Outcome[] = []
  const answers: DeliverResponse[] = []
  const broken = new AbortController()
  let wake = () => {}
  async function* sent() {
    for (;;) {
      const next = requests.shift()
      if (next !== undefined) yield next
      else {
        await new Promise<void>((resolve) => {
          wake = resolve
          broken.signal.addEventListener('abort', () => resolve(), { once: true })
        })
        if (broken.signal.aborted) return
      }
    }
  }
  const read = async () => {
    const metadata = Metadata({ 'edge-id': edgeId })
    const stream = connection.client(EdgeServiceDefinition).deliver(sent(), { metadata, signal: broken.signal })
    for await (const response of stream) {
      answers.push(response)
      outcomes.push(...response.outcomes)
    }
  }
  const ended = read().then(
    () => 'ended',
    (error: unknown) => error,
  )
  return {
    outcomes,
    answers,
    ended,
    send(request) {
      requests.push(request)
      wake()
    },
    async kinds(deliveryId, count = 1) {
      const kinds = () => outcomes.filter((outcome) => outcome.deliveryId === deliveryId).map(({ kind }) => kind)
      await expect.poll(() => kinds().length, { interval: 5 }).toBeGreaterThanOrEqual(count)
      return kinds()
    },
    breakOff: () => broken.abort(),
  }
}
