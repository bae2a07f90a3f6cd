import type { DeviceSession } from '../../edge/device-session.ts'
import { type DeliverResponse, InboxReadyResult, OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import type { Link, LinkDelivery, PokeAnswer, SessionName } from '../../router/dispatch/link.ts'
import type { Scheduler } from '../session-rules/scheduler.ts'
import type { SimulatedEdge } from '../session-rules/simulated-edge.ts'
import type { Breakage } from './setting.ts'

/** A router's link to an edge. What goes to the edge goes in any order; its answers come one after the other, as on one stream. */
export class ScheduledLink implements Link {
  readonly state = 'open'
  readonly unansweredCount = 0
  readonly answering = true
  readonly #scheduler: Scheduler
  readonly #edge: SimulatedEdge
  readonly #breakage: Breakage
  readonly #send: ReturnType<SimulatedEdge['stream']>
  readonly #deliveries = new Map<number, LinkDelivery>()
  readonly #pokes = new Map<number, (answer: PokeAnswer) => void>()
  readonly #answers: { readonly name: string; readonly run: () => void }[] = []
  #lastId = 0

  constructor(scheduler: Scheduler, edge: SimulatedEdge, breakage: Breakage) {
    this.#scheduler = scheduler
    this.#edge = edge
    this.#breakage = breakage
    this.#send = edge.stream((answer) => this.#answered(answer))
  }

  deliver(delivery: LinkDelivery): number {
    const id = ++this.#lastId
    this.#deliveries.set(id, delivery)
    const built = delivery.build(id)
    this.#must(`${built.messageId} to ${built.sessionId.charAt(0)}`, () => {
      if (!this.#deliveries.has(id)) return
      this.#send({ deliveries: [built] })
      delivery.onSent()
    })
    return id
  }

  forget(id: number): void {
    this.#deliveries.delete(id)
  }

  poke({ deviceId, sessionId }: SessionName): Promise<PokeAnswer> {
    const pokeId = ++this.#lastId
    return new Promise((resolve) => {
      this.#pokes.set(pokeId, resolve)
      this.#must(`poke to ${sessionId.charAt(0)}`, () => {
        const session = this.#edge.sessions.find(deviceId, sessionId)
        const broken = session && !session.closed ? this.#broken(session) : undefined
        if (broken !== 'forgotten') this.#send({ inboxReady: [{ pokeId, deviceId, sessionId }] })
        if (broken !== undefined) this.#hear('poke taken at once', () => resolve(InboxReadyResult.ACCEPTED))
      })
    })
  }

  closeSession(): Promise<'unanswered'> {
    throw new Error('the router closes a session, which nothing here asks for')
  }

  owePoke({ sessionId }: SessionName): void {
    throw new Error(`a poke to ${sessionId} is owed, and no time has passed`)
  }

  #broken(session: DeviceSession): 'taken' | 'forgotten' | undefined {
    return this.#breakage.poke?.(session)
  }

  #must(name: string, run: () => void): void {
    this.#scheduler.offer({ name, sort: 'must', run })
  }

  #answered({ outcomes, inboxReadyAnswers }: DeliverResponse): void {
    for (const outcome of outcomes) {
      const hear = () => this.#deliveries.get(outcome.deliveryId)?.onOutcome(outcome)
      this.#hear(`${nameOf(OutcomeKind, outcome.kind)} heard`, hear)
    }
    for (const { pokeId, result } of inboxReadyAnswers) {
      this.#hear(`poke answered ${nameOf(InboxReadyResult, result)}`, () => this.#pokes.get(pokeId)?.(result))
    }
  }

  #hear(name: string, run: () => void): void {
    this.#answers.push({ name, run })
    if (this.#answers.length === 1) this.#offerNext()
  }

  #offerNext(): void {
    const [next] = this.#answers
    if (next === undefined) return
    this.#must(next.name, () => {
      this.#answers.shift()
      next.run()
      this.#offerNext()
    })
  }
}

function nameOf(words: Readonly<Record<string, number>>, value: number): string {
  return Object.keys(words).find((word) => words[word] === value) ?? String(value)
}
