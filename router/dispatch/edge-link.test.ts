import { afterEach, expect, test } from 'vitest'
import {
  CloseReason,
  CloseSessionResult,
  type DeliverRequest,
  type DeliverResponse,
  EdgeServiceDefinition,
  InboxReadyResult,
  type Outcome,
  OutcomeKind,
} from '../../gen/push/internal/v1/edge.ts'
import { serviceTransport } from '../../service-kit/client-transport.ts'
import { type Clock, systemClock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { type GrpcServer, serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { systemRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { buildDelivery } from './delivery.ts'
import { EdgeLink, owedAtOnceMax, owedCountMax } from './edge-link.ts'
import { createEdgeLinks } from './edge-links.ts'
import { defaultLinkLimits, type EdgeLinkLimits, type LinkDelivery } from './link.ts'
import { emptyMessage } from './testing/dispatch-bench.ts'

const opened: (() => void | Promise<void>)[] = []
afterEach(async () => {
  for (const close of opened.splice(0).reverse()) await close()
})

/** An edge that answers as told; `answer` undefined means silence. */
class ScriptedEdge {
  readonly frames: DeliverRequest[] = []
  streamCount = 0
  answer: (request: DeliverRequest) => DeliverResponse | undefined = (request) => ({
    outcomes: request.deliveries.map(({ deliveryId }) => outcome(deliveryId, OutcomeKind.ACKNOWLEDGED)),
    inboxReadyAnswers: [],
    closeSessionAnswers: request.closeSessions.map(({ closeId }) => ({ closeId, result: CloseSessionResult.CLOSED })),
  })
  #server: GrpcServer | undefined
  #breaks = new Set<() => void>()

  async listen(address = '127.0.0.1:0', edgeId = 'e1'): Promise<string> {
    const server = await serveGrpc({
      address,
      log: silentLog,
      metrics: createMetrics(),
      clock: systemClock,
      services: (adding) =>
        adding.add(EdgeServiceDefinition, {
          deliver: (requests, context) => {
            if (context.metadata.get('edge-id') !== edgeId) throw new PushError('EDGE_RESTARTED', `this is ${edgeId}`)
            context.header.set('edge-id', edgeId)
            context.sendHeader()
            return this.#stream(requests)
          },
          drain: () => Promise.reject(new Error('not called')),
          probe: () => Promise.reject(new Error('not called')),
        }),
    })
    this.#server = server
    opened.push(() => this.stop())
    return server.address
  }

  async *#stream(requests: AsyncIterable<DeliverRequest>): AsyncGenerator<DeliverResponse> {
    this.streamCount++
    const broken = new Promise<'broken'>((resolve) => this.#breaks.add(() => resolve('broken')))
    const iterator = requests[Symbol.asyncIterator]()
    while (true) {
      const next = await Promise.race([iterator.next(), broken])
      if (next === 'broken') throw new PushError('DRAINING', 'the stream breaks')
      if (next.done) return
      this.frames.push(next.value)
      const answer = this.answer(next.value)
      if (answer) yield answer
    }
  }

  breakStreams(): void {
    for (const end of this.#breaks) end()
    this.#breaks.clear()
  }

  async stop(): Promise<void> {
    this.breakStreams()
    await this.#server?.drain(0)
  }
}

function outcome(deliveryId: number, kind: OutcomeKind): Outcome {
  return { deliveryId, kind, final: false, writtenTime: 1, answeredTime: 0, sessionId: 's', detail: '', result: undefined }
}

const parts = { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() }

function linkTo(address: string, limits: Partial<EdgeLinkLimits> = {}, clock: Clock = systemClock): EdgeLink {
  const link = new EdgeLink({ ...parts, clock, edgeId: 'e1', address, limits: { ...defaultLinkLimits, ...limits } })
  opened.push(() => link.close())
  return link
}

/** Sends one delivery; `said` has what was heard, in order. */
function send(link: EdgeLink, how: { high?: boolean } = {}) {
  const said: string[] = []
  let wake = () => {}
  const say = (word: string) => {
    said.push(word)
    wake()
  }
  const message = { messageId: 'm', message: emptyMessage(), acceptTime: 1, expireTime: 2, principal: '', attempt: 0 }
  const row = {
    deviceId: 'd',
    epoch: 1,
    sessionId: 's',
    edgeId: 'e1',
    edgeAddress: '',
    accountId: '',
    protocol: '',
    connectedTime: 1,
  }
  const delivery: LinkDelivery = {
    high: how.high ?? false,
    byteCount: 1_000,
    wantsResult: false,
    build: (deliveryId) => buildDelivery(message, message.message, row, { deliveryId, redelivered: false, remainingTime: 1 }),
    onSent: () => say('sent'),
    onOutcome: (heard) => say(`outcome ${heard.kind}`),
    onLost: (lost) => say(lost),
  }
  const id = link.deliver(delivery)
  return {
    said,
    id,
    /** Resolves when so many things have been heard. */
    heard: (count: number) =>
      new Promise<string[]>((resolve) => {
        wake = () => {
          if (said.length >= count) resolve(said)
        }
        wake()
      }),
  }
}

test('the stream opens when something is first sent, and carries what waits in one frame', async () => {
  const edge = new ScriptedEdge()
  const link = linkTo(await edge.listen())
  expect(edge.streamCount).toBe(0)
  const sends = [send(link), send(link), send(link)]
  await Promise.all(sends.map((one) => one.heard(2)))
  expect(edge.streamCount).toBe(1)
  expect(edge.frames.map((frame) => frame.deliveries.length)).toEqual([3])
  expect(sends.map((one) => one.said)).toEqual(Array(3).fill(['sent', `outcome ${OutcomeKind.ACKNOWLEDGED}`]))
})

test('another process at the address means that the edge is gone, at once and for good', async () => {
  const edge = new ScriptedEdge()
  const address = await edge.listen('127.0.0.1:0', 'e2')
  const links = createEdgeLinks(parts)
  opened.push(() => links.close())
  const row = { edgeId: 'e1', edgeAddress: address }
  const link = links.to(row)
  if (!(link instanceof EdgeLink)) throw new Error('expected a link')
  expect(await send(link).heard(1)).toEqual(['gone'])
  expect(links.isGone(row, false)).toBe(true)
})

test('an address where nobody listens: unreachable, and gone only when its lease has lapsed as well', async () => {
  const edge = new ScriptedEdge()
  const address = await edge.listen()
  await edge.stop()
  const links = createEdgeLinks(parts)
  opened.push(() => links.close())
  const row = { edgeId: 'e1', edgeAddress: address }
  const link = links.to(row)
  if (!(link instanceof EdgeLink)) throw new Error('expected a link')
  expect(links.isGone(row, true)).toBe(false)
  expect(await send(link).heard(1)).toEqual(['unreachable'])
  expect(links.isGone(row, false)).toBe(false)
  expect(links.isGone(row, true)).toBe(true)
})

test('when the stream breaks, what was handed over is unknown', async () => {
  const edge = new ScriptedEdge()
  edge.answer = () => undefined
  const link = linkTo(await edge.listen())
  const one = send(link)
  await one.heard(1)
  edge.breakStreams()
  expect(await one.heard(2)).toEqual(['sent', 'unknown'])
})

test('what was written and not answered is unknown too when the stream breaks', async () => {
  const edge = new ScriptedEdge()
  edge.answer = (request) => ({
    outcomes: request.deliveries.map(({ deliveryId }) => outcome(deliveryId, OutcomeKind.WRITTEN)),
    inboxReadyAnswers: [],
    closeSessionAnswers: [],
  })
  const link = linkTo(await edge.listen())
  const one = send(link)
  await one.heard(2)
  edge.breakStreams()
  expect((await one.heard(3)).at(-1)).toBe('unknown')
})

test('no first outcome in time is unknown, and frees its place in the window', async () => {
  const edge = new ScriptedEdge()
  edge.answer = () => undefined
  const clock = new SteeredClock()
  const link = linkTo(await edge.listen(), { firstOutcomeTimeoutMs: 5_000, windowCountMax: 1 }, clock)
  const first = send(link)
  await first.heard(1)
  await clock.advance(4_999)
  expect(first.said).toEqual(['sent'])
  await clock.advance(1)
  expect(await first.heard(2)).toEqual(['sent', 'unknown'])
  const second = send(link)
  expect((await second.heard(1))[0]).toBe('sent')
})

test('an edge that leaves something unanswered, or cannot be reached, is not answering until it says something again', async () => {
  const edge = new ScriptedEdge()
  const { answer } = edge
  const clock = new SteeredClock()
  const link = linkTo(await edge.listen(), { firstOutcomeTimeoutMs: 5_000 }, clock)
  expect(link.answering).toBe(true)
  edge.answer = () => undefined
  const unanswered = send(link)
  await unanswered.heard(1)
  await clock.advance(5_000)
  expect(await unanswered.heard(2)).toEqual(['sent', 'unknown'])
  expect(link.answering).toBe(false)
  edge.answer = answer
  await send(link).heard(2)
  expect(link.answering).toBe(true)
  await edge.stop()
  await expect.poll(() => link.answering).toBe(false)
})

test('some edge answers while one has an open stream and leaves nothing unanswered', async () => {
  const edge = new ScriptedEdge()
  const address = await edge.listen()
  const links = createEdgeLinks(parts)
  opened.push(() => links.close())
  const link = links.to({ edgeId: 'e1', edgeAddress: address })
  if (!(link instanceof EdgeLink)) throw new Error('expected a link')
  // Nobody has asked it anything yet.
  expect(links.someAnswers()).toBe(false)
  await send(link).heard(2)
  expect(links.someAnswers()).toBe(true)
  await edge.stop()
  await expect.poll(() => links.someAnswers()).toBe(false)
})

test('a full window holds further deliveries back, and HIGH has a window of its own', async () => {
  const edge = new ScriptedEdge()
  const held: DeliverRequest[] = []
  edge.answer = (request) => {
    held.push(request)
    return undefined
  }
  const link = linkTo(await edge.listen(), { windowCountMax: 2 })
  const bulk = [send(link), send(link), send(link)]
  await Promise.all([bulk[0]?.heard(1), bulk[1]?.heard(1)])
  expect(bulk[2]?.said).toEqual([])
  const high = send(link, { high: true })
  expect(await high.heard(1)).toEqual(['sent'])
  expect(bulk[2]?.said).toEqual([])
  link.forget(bulk[0]?.id ?? 0)
  expect(await bulk[2]?.heard(1)).toEqual(['sent'])
})

test('a broken stream is opened again by what is sent after the back-off', async () => {
  const edge = new ScriptedEdge()
  const link = linkTo(await edge.listen())
  await send(link).heard(2)
  edge.breakStreams()
  await expect.poll(() => link.state).toBe('down')
  let said: string[] = []
  await expect
    .poll(async () => {
      said = await send(link).heard(1)
      return said[0]
    })
    .toBe('sent')
  expect(edge.streamCount).toBe(2)
})

test('an idle stream is closed, and opened again when needed', async () => {
  const edge = new ScriptedEdge()
  const link = linkTo(await edge.listen(), { idleTimeoutMs: 50 })
  const first = send(link)
  await first.heard(2)
  link.forget(first.id)
  await expect.poll(() => link.state).toBe('idle')
  await send(link).heard(2)
  expect(edge.streamCount).toBe(2)
})

test('closes are answered; an edge that is silent leaves them unanswered', async () => {
  const edge = new ScriptedEdge()
  const link = linkTo(await edge.listen())
  const close = {
    deviceId: 'd',
    sessionId: 's',
    reason: CloseReason.SUPERSEDED,
    replacerSessionId: 't',
    replacerEpoch: 2,
    detail: '',
  }
  expect(await link.closeSession(close, 30_000)).toBe(CloseSessionResult.CLOSED)
  edge.answer = () => undefined
  expect(await link.closeSession(close, 50)).toBe('unanswered')
})

test('a poke is answered; an owed one goes out when a stream opens again', async () => {
  const edge = new ScriptedEdge()
  const pokes: string[] = []
  edge.answer = (request) => {
    pokes.push(...request.inboxReady.map(({ sessionId }) => sessionId))
    return {
      outcomes: [],
      inboxReadyAnswers: request.inboxReady.map(({ pokeId }) => ({ pokeId, result: InboxReadyResult.ACCEPTED })),
      closeSessionAnswers: [],
    }
  }
  const address = await edge.listen()
  const link = linkTo(address)
  expect(await link.poke({ deviceId: 'd', sessionId: 's1' }, 30_000)).toBe(InboxReadyResult.ACCEPTED)
  edge.breakStreams()
  await expect.poll(() => link.state).toBe('down')
  link.owePoke({ deviceId: 'd', sessionId: 's2' })
  await expect.poll(() => pokes).toEqual(['s1', 's2'])
})

test('with more owed pokes than are remembered, one poke of all sessions takes their place, and is repeated until it is answered', async () => {
  const edge = new ScriptedEdge()
  const named: string[] = []
  let ofAll = 0
  edge.answer = (request) => {
    named.push(...request.inboxReady.map(({ sessionId }) => sessionId))
    ofAll += request.inboxReadyAll.length
    return {
      outcomes: [],
      inboxReadyAnswers: [...request.inboxReady, ...(ofAll > 1 ? request.inboxReadyAll : [])].map(({ pokeId }) => ({
        pokeId,
        result: InboxReadyResult.ACCEPTED,
      })),
      closeSessionAnswers: [],
    }
  }
  const metrics = createMetrics()
  const link = new EdgeLink({ ...parts, metrics, edgeId: 'e1', address: await edge.listen(), limits: defaultLinkLimits })
  opened.push(() => link.close())
  // All in one tick: no stream is open before the last of them.
  for (let n = 0; n <= owedCountMax; n++) link.owePoke({ deviceId: `d${n}`, sessionId: `s${n}` })
  link.owePoke({ deviceId: 'one more', sessionId: 'is for all as well' })
  await expect.poll(() => ofAll, { timeout: 10_000 }).toBe(1)
  // Nobody has answered it when the stream breaks.
  edge.breakStreams()
  link.owePoke({ deviceId: 'd', sessionId: 'by its name again' })
  await expect.poll(() => ofAll, { timeout: 10_000 }).toBe(2)
  await link.poke({ deviceId: 'd', sessionId: 'last' }, 10_000)
  expect(named.filter((sessionId) => sessionId !== 'by its name again')).toEqual(['last'])
  expect(ofAll).toBe(2)
  expect(await metricValue(metrics, 'push_router_owed_pokes_full_total')).toBe(1)
})

test('of many owed pokes only so many wait for their answers at once, and all are paid in the end', async () => {
  const edge = new ScriptedEdge()
  const named: string[] = []
  let answers = false
  edge.answer = (request) => {
    named.push(...request.inboxReady.map(({ sessionId }) => sessionId))
    if (!answers) return undefined
    return {
      outcomes: [],
      inboxReadyAnswers: request.inboxReady.map(({ pokeId }) => ({ pokeId, result: InboxReadyResult.ACCEPTED })),
      closeSessionAnswers: [],
    }
  }
  const link = linkTo(await edge.listen())
  const count = 3 * owedAtOnceMax
  for (let n = 0; n < count; n++) link.owePoke({ deviceId: `d${n}`, sessionId: `s${n}` })
  await expect.poll(() => named.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(owedAtOnceMax)
  void link.poke({ deviceId: 'd', sessionId: 'after them' }, 10_000)
  await expect.poll(() => named, { timeout: 10_000 }).toContain('after them')
  expect(named).toHaveLength(owedAtOnceMax + 1)
  // The stream breaks: what was not answered is owed again.
  answers = true
  edge.breakStreams()
  await expect.poll(() => new Set(named).size, { timeout: 10_000 }).toBe(count + 1)
})

test('a link that is closed owes nothing any more', async () => {
  const edge = new ScriptedEdge()
  edge.answer = () => undefined
  const link = linkTo(await edge.listen())
  link.owePoke({ deviceId: 'd', sessionId: 's' })
  await expect.poll(() => edge.frames, { timeout: 10_000 }).toHaveLength(1)
  link.close()
  link.owePoke({ deviceId: 'd', sessionId: 's' })
  await expect.poll(() => link.state, { timeout: 10_000 }).toBe('idle')
})

test('an owed poke to an edge that is gone is forgotten', async () => {
  const edge = new ScriptedEdge()
  const link = linkTo(await edge.listen('127.0.0.1:0', 'e2'))
  link.owePoke({ deviceId: 'd', sessionId: 's' })
  await expect.poll(() => link.state).toBe('gone')
  expect(edge.frames).toEqual([])
})

test("the device's answer to a written delivery that was given up is told as a late one; any other outcome is not", async () => {
  const edge = new ScriptedEdge()
  const wake = Promise.withResolvers<void>()
  edge.answer = (request) => ({
    outcomes: request.deliveries.map(({ deliveryId }) => outcome(deliveryId, OutcomeKind.WRITTEN)),
    inboxReadyAnswers: [],
    closeSessionAnswers: [],
  })
  const late: string[] = []
  const link = new EdgeLink({
    ...parts,
    edgeId: 'e1',
    address: await edge.listen(),
    limits: defaultLinkLimits,
    onLateOutcome: ({ deviceId, messageId, outcome: { kind } }) => {
      late.push(`${deviceId} ${messageId} ${kind}`)
      wake.resolve()
    },
  })
  opened.push(() => link.close())
  const first = send(link)
  await first.heard(2)
  link.forget(first.id)
  edge.answer = () => ({
    outcomes: [outcome(first.id, OutcomeKind.CLOSED_UNACKNOWLEDGED), outcome(first.id, OutcomeKind.ACKNOWLEDGED)],
    inboxReadyAnswers: [],
    closeSessionAnswers: [],
  })
  send(link)
  await wake.promise
  expect(late).toEqual([`d m ${OutcomeKind.ACKNOWLEDGED}`])
})

test("the device's answer to a delivery that no outcome came for in time is told as a late one", async () => {
  const edge = new ScriptedEdge()
  const wake = Promise.withResolvers<void>()
  edge.answer = () => ({ outcomes: [], inboxReadyAnswers: [], closeSessionAnswers: [] })
  const clock = new SteeredClock()
  const late: string[] = []
  const link = new EdgeLink({
    ...parts,
    clock,
    edgeId: 'e1',
    address: await edge.listen(),
    limits: { ...defaultLinkLimits, firstOutcomeTimeoutMs: 5_000 },
    onLateOutcome: ({ deviceId, messageId, outcome: { kind } }) => {
      late.push(`${deviceId} ${messageId} ${kind}`)
      wake.resolve()
    },
  })
  opened.push(() => link.close())
  const first = send(link)
  // Handed over, then lost.
  await first.heard(1)
  await clock.advance(5_000)
  await first.heard(2)
  edge.answer = () => ({
    outcomes: [outcome(first.id, OutcomeKind.WRITTEN), outcome(first.id, OutcomeKind.ACKNOWLEDGED)],
    inboxReadyAnswers: [],
    closeSessionAnswers: [],
  })
  send(link)
  await wake.promise
  expect(late).toEqual([`d m ${OutcomeKind.ACKNOWLEDGED}`])
})

test('an edge on another machine is not dialled in plain text, which is told once', async () => {
  const log = recordingLog()
  const link = new EdgeLink({
    ...parts,
    log,
    edgeId: 'e1-abcdefgh',
    address: '10.0.0.1:7402',
    limits: defaultLinkLimits,
    transport: serviceTransport(undefined, false),
  })
  opened.push(() => link.close())
  for (let times = 0; times < 2; times++) {
    send(link)
    await expect.poll(() => link.state).toBe('down')
  }
  expect(
    log.withPhrase('edge is not dialled in plain text; give this router and the edge certificates, or set ROUTER_INSECURE=true'),
  ).toMatchObject([{ level: 'error', facts: { edge_id: 'e1-abcdefgh', address: '10.0.0.1:7402' } }])
})
