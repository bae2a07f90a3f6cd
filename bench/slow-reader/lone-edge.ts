import { Metadata } from 'nice-grpc-common'
import { type FakePlane, serveFakePlane } from '../../edge/testing/fake-plane.ts'
import type { DeepPartial, DeliverRequest, Delivery, Outcome } from '../../gen/push/internal/v1/edge.ts'
import { EdgeServiceDefinition } from '../../gen/push/internal/v1/edge.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { edgeProcess } from '../edge-process.ts'

/** An edge in a process of its own. The registry and the router that it needs are answered from this process, without a store. */
export interface LoneEdge {
  readonly deviceAddress: string
  /** Hands deliveries over as a router does. `onOutcome` hears what became of them. */
  openStream(onOutcome: (outcome: Outcome) => void): DeliverStream
  /** What the edge tells of itself now, by name; metrics with labels are left out. */
  metrics(): Promise<(name: string) => number>
  close(): Promise<void>
}

export interface DeliverStream {
  /** Throws when the stream is over. */
  deliver(delivery: Delivery): void
  close(): void
}

const stopGraceMs = 5_000

/** Starts one with these settings; its log lies in `folder`. */
export async function startLoneEdge(folder: string, settings: Readonly<Record<string, string>>): Promise<LoneEdge> {
  const plane: FakePlane = await serveFakePlane()
  const edge = edgeProcess(folder, { EDGE_REGISTRY_ADDRESSES: plane.address, EDGE_ROUTER_ADDRESSES: plane.address, ...settings })
  await edge.start().catch(async (error: unknown) => {
    await plane.close()
    throw error
  })
  return {
    deviceAddress: edge.fact('device_address'),
    openStream: (onOutcome) => openStream(edge.fact('address'), edge.fact('edge_id'), onOutcome),
    async metrics() {
      const text = await edge.metrics()
      const values = new Map([...text.matchAll(/^(\w+) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]))
      return (name) => values.get(name) ?? Number.NaN
    },
    async close() {
      await edge.stop(stopGraceMs)
      await plane.close()
    },
  }
}

function openStream(address: string, edgeId: string, onOutcome: (outcome: Outcome) => void): DeliverStream {
  const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
  const requests: DeepPartial<DeliverRequest>[] = []
  let wake = () => {}
  let closed = false
  let over: unknown

  async function* sent() {
    while (!closed) {
      const next = requests.shift()
      if (next !== undefined) yield next
      else
        await new Promise<void>((resolve) => {
          wake = resolve
        })
    }
  }
  const read = async () => {
    const metadata = Metadata({ 'edge-id': edgeId })
    for await (const { outcomes } of connection.client(EdgeServiceDefinition).deliver(sent(), { metadata })) {
      for (const outcome of outcomes) onOutcome(outcome)
    }
  }
  read().then(
    () => {
      over = new Error('the edge has ended the stream')
    },
    (cause: unknown) => {
      over = cause
    },
  )
  return {
    deliver(delivery) {
      if (over !== undefined) throw new Error('the stream to the edge is over', { cause: over })
      requests.push({ deliveries: [delivery] })
      wake()
    },
    close() {
      closed = true
      wake()
      connection.close()
    },
  }
}
