import { createReconnectPolicy } from '../../device-sdk/reconnect.ts'
import { DrainMachine } from '../../edge/drain-machine.ts'
import type { Random } from '../../service-kit/random.ts'
import { createSchedule, type Schedule } from './schedule.ts'

/** A fleet of devices on a few edges, and what happens to it. Times are ms. */
export interface FleetOptions {
  readonly deviceCount: number
  readonly edgeCount: number
  readonly lifetimeMs: number
  readonly lifetimeJitterMs: number
  /** Whether devices are given slots to leave in, by an edge that they have outstayed or that drains; or are told to leave at once. */
  readonly slots: boolean
  readonly event: 'edge lost' | 'rolling deploy'
  readonly eventAtMs: number
  readonly endMs: number
  readonly random: Random
}

/** Longest slot at the end of a lifetime: `EDGE_SLOT_MAX_MS`. */
export const slotMaxMs = 30_000
/** How many an edge registers a second and how long a device waits for it: `EDGE_REGISTER_RATE_PER_SECOND`, `EDGE_REGISTER_TIMEOUT_MS`. */
export const registerRatePerSecond = 500
const registerTimeoutMs = 5_000
/** One edge of a deploy: its drain's bounds, then the time until its successor takes devices. */
export const drainBounds = { noticeMs: 5_000, overMs: 60_000, graceMs: 5_000, closingMs: 6_000 }
export const restartMs = 10_000
const lookMs = 100

/** What was seen: how many devices have opened a new connection in each second, and how many attempts were refused. */
export interface FleetCourse {
  readonly reconnectsBySecond: Uint32Array
  readonly refused: number
}

interface Device {
  edge: Edge
  openedAt: number
  /** Counts its connections: what was planned for an older one is void. */
  stay: number
  policy: ReturnType<typeof createReconnectPolicy> | undefined
}

interface Edge {
  readonly devices: Set<Device>
  takes: boolean
  /** When the registration that begins next begins. */
  freeAt: number
}

/** Runs the fleet from its steady state, with the edge's own drain and the device SDK's own back-off. */
export function runFleet(options: FleetOptions): FleetCourse {
  const { deviceCount, edgeCount, lifetimeMs, lifetimeJitterMs, slots, eventAtMs, endMs, random } = options
  const reconnectsBySecond = new Uint32Array(Math.ceil(endMs / 1_000))
  const schedule: Schedule = createSchedule()
  const edges: Edge[] = Array.from({ length: edgeCount }, () => ({ devices: new Set(), takes: true, freeAt: 0 }))
  let refused = 0

  const pickEdge = (): Edge => {
    const open = edges.filter(({ takes }) => takes)
    const edge = open[Math.floor(random.next() * open.length)]
    if (edge === undefined) throw new Error('no edge takes devices')
    return edge
  }

  const plan = (device: Device, atMs: number, run: (nowMs: number) => void) => {
    const { stay } = device
    schedule.add(atMs, (nowMs) => {
      if (device.stay === stay) run(nowMs)
    })
  }

  const connect = (device: Device, nowMs: number) => {
    const edge = pickEdge()
    const openAt = Math.max(nowMs, edge.freeAt)
    device.stay++
    if (openAt - nowMs > registerTimeoutMs) {
      refused++
      comeBack(device, nowMs, 1013)
      return
    }
    edge.freeAt = openAt + 1_000 / registerRatePerSecond
    device.edge.devices.delete(device)
    edge.devices.add(device)
    device.edge = edge
    plan(device, openAt, opened)
    function opened(atMs: number) {
      device.openedAt = atMs
      const second = Math.floor(atMs / 1_000)
      if (second < reconnectsBySecond.length) reconnectsBySecond[second] = (reconnectsBySecond[second] ?? 0) + 1
      plan(device, atMs + lifetimeMs - random.next() * lifetimeJitterMs, (endAt) => lifetimeOver(device, endAt))
    }
  }

  const comeBack = (device: Device, nowMs: number, code: number) => {
    device.policy ??= createReconnectPolicy(random)
    const openMs = code === 1013 ? 0 : nowMs - device.openedAt
    const waitMs = device.policy.after({ code, openMs, slotInMs: undefined, ownAttempt: false })
    device.stay++
    plan(device, nowMs + waitMs, (atMs) => connect(device, atMs))
  }

  const lifetimeOver = (device: Device, nowMs: number) => {
    const slotMs = slots ? random.next() * slotMaxMs : 0
    plan(device, nowMs + slotMs, (atMs) => connect(device, atMs))
  }

  const lose = (edge: Edge, nowMs: number) => {
    edge.takes = false
    for (const device of edge.devices) comeBack(device, nowMs, 1006)
    edge.devices.clear()
  }

  const drain = (edge: Edge, nowMs: number, done: (nowMs: number) => void) => {
    const machine = new DrainMachine(drainBounds)
    machine.handle({ type: 'stop', overMs: drainBounds.overMs }, nowMs)
    const told = new Set<Device>()
    const look = (atMs: number) => {
      const untold = [...edge.devices].filter((device) => !told.has(device))
      for (const effect of machine.handle({ type: 'look', untold: untold.length, present: edge.devices.size }, atMs)) {
        if (effect.type === 'take devices') edge.takes = effect.taken
        if (effect.type !== 'evict') continue
        for (const [index, slotMs] of effect.slotsMs.entries()) {
          const device = untold[index]
          if (device === undefined) break
          told.add(device)
          plan(device, atMs + slotMs, (leavesAt) => connect(device, leavesAt))
        }
      }
      if (machine.state === 'gone') done(atMs)
      else schedule.add(atMs + lookMs, look)
    }
    look(nowMs)
  }

  const deploy = (index: number, nowMs: number) => {
    const edge = edges[index]
    if (edge === undefined) return
    const restart = (atMs: number) => {
      schedule.add(atMs + restartMs, (upAt) => {
        edge.takes = true
        deploy(index + 1, upAt)
      })
    }
    if (slots) return drain(edge, nowMs, restart)
    // As long until the next one: what differs is only how its devices leave.
    lose(edge, nowMs)
    schedule.add(nowMs + drainBounds.noticeMs + drainBounds.overMs, restart)
  }

  for (let count = 0; count < deviceCount; count++) {
    const device: Device = { edge: pickEdge(), openedAt: 0, stay: 0, policy: undefined }
    device.edge.devices.add(device)
    const restMs = restOfLifetimeMs(lifetimeMs - lifetimeJitterMs, lifetimeMs, random)
    plan(device, restMs, (nowMs) => lifetimeOver(device, nowMs))
  }
  schedule.add(eventAtMs, (nowMs) => {
    const [first] = edges
    if (options.event === 'rolling deploy') deploy(0, nowMs)
    else if (first !== undefined) lose(first, nowMs)
  })
  schedule.runUntil(endMs)
  return { reconnectsBySecond, refused }
}

/** What is left of a lifetime that is met at a random moment: longer ones are met more often. */
function restOfLifetimeMs(shortestMs: number, longestMs: number, random: Random): number {
  const metMs = Math.sqrt(shortestMs ** 2 + random.next() * (longestMs ** 2 - shortestMs ** 2))
  return random.next() * metMs
}
