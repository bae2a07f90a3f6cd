import { setTimeout as delay } from 'node:timers/promises'
import { deliveryOf } from '../../edge/testing/deliveries.ts'
import { OutcomeKind } from '../../gen/push/internal/v1/edge.ts'
import { type BenchDevice, connectBenchDevice } from './bench-device.ts'
import type { LoneEdge } from './lone-edge.ts'

/** Messages of one size at an even rate. */
export interface Flow {
  readonly perSecond: number
  readonly bytes: number
}

/** What one phase has come to. */
export interface PhaseResult {
  /** From handing a delivery to the stream until the device's frame, of all devices but the one, in ms, sorted. */
  readonly latencies: readonly number[]
  /** Messages of these devices that had not come 10 s after the last was sent. */
  readonly lost: number
  /** What the edge said of messages of these devices, other than WRITTEN and ACKNOWLEDGED. */
  readonly refused: OutcomeCounts
  /** The first thing that the edge said of each message of the one; `waiting`: nothing yet. */
  readonly ofTheOne: OutcomeCounts
}

/** How many, by name. */
export type OutcomeCounts = Readonly<Record<string, number>>

/** Devices, and a router's stream to their edge. */
export interface Traffic {
  /** The device that may stall. */
  readonly theOne: BenchDevice
  /** Sends to all in turn, and to the one also the flood, for so long; then waits for what the others have not had yet. */
  run(durationMs: number, toAll: Flow, flood?: Flow): Promise<PhaseResult>
  close(): void
}

const connectsAtOnce = 50
const lateMs = 10_000
const paceMs = 1

/** Connects so many devices to the edge. */
export async function openTraffic(edge: LoneEdge, deviceCount: number): Promise<Traffic> {
  /** When what the others have not had yet was handed over, by message id. */
  const underWay = new Map<string, number>()
  let latencies: number[] = []
  const received = (messageId: string) => {
    const sentAt = underWay.get(messageId)
    if (sentAt === undefined) return
    underWay.delete(messageId)
    latencies.push(performance.now() - sentAt)
  }
  const devices: BenchDevice[] = []
  while (devices.length < deviceCount) {
    const connecting = Array.from({ length: Math.min(connectsAtOnce, deviceCount - devices.length) }, (_, index) =>
      connectBenchDevice(edge.deviceAddress, `tv-${devices.length + index}`, received),
    )
    devices.push(...(await Promise.all(connecting)))
  }
  const [theOne] = devices
  if (theOne === undefined) throw new Error('no devices')

  /** The first outcome of each message that the one was sent, by delivery id. */
  const ofTheOne = new Map<number, string>()
  let refused: string[] = []
  const stream = edge.openStream(({ deliveryId, kind }) => {
    const before = ofTheOne.get(deliveryId)
    if (before === waiting) ofTheOne.set(deliveryId, nameOf(kind))
    else if (before === undefined && kind !== OutcomeKind.WRITTEN && kind !== OutcomeKind.ACKNOWLEDGED) refused.push(nameOf(kind))
  })

  const send = (device: BenchDevice, payload: Buffer) => {
    const { deviceId, sessionId } = device
    const delivery = deliveryOf({ target: `device/${deviceId}` }, { deviceId, sessionId, payload })
    if (device === theOne) ofTheOne.set(delivery.deliveryId, waiting)
    else underWay.set(delivery.messageId, performance.now())
    stream.deliver(delivery)
  }
  let turn = 0
  const sendInTurn = (payload: Buffer) => send(devices[turn++ % deviceCount] ?? theOne, payload)

  return {
    theOne,
    async run(durationMs, toAll, flood = { perSecond: 0, bytes: 2 }) {
      latencies = []
      refused = []
      const known = ofTheOne.size
      const sendDue = [paced(toAll, sendInTurn), paced(flood, (payload) => send(theOne, payload))]
      const begun = performance.now()
      for (let elapsedMs = 0; elapsedMs < durationMs; elapsedMs = performance.now() - begun) {
        for (const due of sendDue) due(elapsedMs)
        await delay(paceMs)
      }
      const giveUpAt = performance.now() + lateMs
      while (underWay.size > 0 && performance.now() < giveUpAt) await delay(paceMs)
      const lost = underWay.size
      underWay.clear()
      return {
        latencies: latencies.sort((a, b) => a - b),
        lost,
        refused: countsOf(refused),
        ofTheOne: countsOf([...ofTheOne.values()].slice(known)),
      }
    },
    close() {
      stream.close()
      for (const device of devices) device.close()
    },
  }
}

const waiting = 'waiting'

/** Sends what is due of the flow; what could not be sent in time is made up for at once. */
function paced({ perSecond, bytes }: Flow, send: (payload: Buffer) => void): (elapsedMs: number) => void {
  const payload = Buffer.from(JSON.stringify('x'.repeat(bytes - 2)))
  let sent = 0
  return (elapsedMs) => {
    for (; sent < (elapsedMs / 1_000) * perSecond; sent++) send(payload)
  }
}

function nameOf(kind: OutcomeKind): string {
  return Object.entries(OutcomeKind).find(([, value]) => value === kind)?.[0] ?? String(kind)
}

function countsOf(names: readonly string[]): OutcomeCounts {
  const counts: Record<string, number> = {}
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1
  return counts
}
