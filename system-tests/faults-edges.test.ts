import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import {
  comeBackTimeoutMs,
  expectAllDelivered,
  type FaultRun,
  nth,
  settleTimeoutMs,
  shortLeases,
  startRun,
  testTimeoutMs,
} from './fault-run.ts'
import { FleetDevice } from './fleet/fleet-device.ts'
import { type LinkProxy, startLinkProxy } from './plane/link-proxy.ts'
import { failures, until, untilFinished, untilSettled } from './run.ts'
import { freePorts } from './servers/ports.ts'

/** Direct calls wait for their limit where a device cannot be reached, and must not hold up the others. */
function startBoth(load: FaultRun['load']) {
  return [load({ directShare: 0, pauseMs: 50 }), load({ directShare: 1, publisherCount: 8, pauseMs: 50 })]
}

test(
  'SIGSTOP of an edge past its lease, then SIGCONT: what its devices missed waits for them, there or elsewhere',
  async () => {
    const { plane, fleet, run, load, publisher, closedEdges } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 150,
      ...shortLeases,
      routerEnv: { ROUTER_HOLD_TIME_MS: '5000' },
    })
    const loads = startBoth(load)
    await delay(1_000)
    const edge = nth(plane.edges, 0)
    const address = edge.fact('device_address')
    const here = fleet.devices.filter((device) => device.connectedTo === address)
    expect(here.length).toBeGreaterThan(10)
    closedEdges.add(edge)
    edge.pause()
    await delay(3_000)
    // Every second device of it gives up on its connection and comes back elsewhere; the others notice nothing.
    for (const device of here.filter((_, index) => index % 2 === 0)) device.cutConnection()
    await delay(11_000)
    edge.resume()
    await Promise.all(loads.map((one) => one.stop()))
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    // Devices that stayed believe that they were connected; the plane could not know.
    await expectAllDelivered('edge paused past its lease', run, { edgesGone: true })
    expect(failures(publisher.published)).toEqual([])
    expect(edge.lines().some(({ phrase }) => phrase === 'the edge lease had lapsed')).toBe(true)
    expect(plane.settled().filter(({ state }) => state === 'STORED').length).toBeGreaterThan(20)
  },
  testTimeoutMs,
)

test(
  'SIGSTOP of a router past its session with Kafka, then SIGCONT: both have its messages, and no handler sees one twice',
  async () => {
    const { plane, run, load, publisher } = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 100 })
    const [first, second] = [load({ pauseMs: 50 }), load({ pauseMs: 50 })]
    await delay(2_000)
    const router = nth(plane.routers, 0)
    // Full of messages that are half way.
    for (const edge of plane.edges) edge.pause()
    await delay(500)
    router.pause()
    for (const edge of plane.edges) edge.resume()
    await delay(14_000)
    router.resume()
    await delay(2_000)
    await Promise.all([first.stop(), second.stop()])
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered('router paused past its session', run)
    // Calls to the paused router may have timed out.
    expect(failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])).toEqual([])
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'an edge and the routers cut off from each other while both reach the registry: nobody counts as offline, and all comes once they meet',
  async () => {
    const edgeCount = 2
    const ports = await freePorts(edgeCount)
    const targets: string[] = []
    const proxies: LinkProxy[] = []
    onTestFinished(async () => {
      await Promise.all(proxies.map((proxy) => proxy.close()))
    })
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 1,
      routerCount: 2,
      edgeCount,
      deviceCount: 100,
      ...shortLeases,
      routerEnv: { ROUTER_HOLD_TIME_MS: '5000' },
      advertise(edge, address) {
        targets[edge] = address
        return `127.0.0.1:${ports[edge]}`
      },
      beforeStart: async () => {
        for (const [index, target] of targets.entries()) proxies.push(await startLinkProxy(nth(ports, index), target))
      },
    })
    const loads = startBoth(load)
    await delay(2_000)
    const proxy = nth(proxies, 0)
    const elsewhere = fleet.devices.filter(({ connectedTo }) => connectedTo === nth(plane.edges, 1).fact('device_address'))
    const cutAt = Date.now()
    proxy.cut()
    await delay(14_000)
    proxy.heal()
    const healedAt = Date.now()
    await Promise.all(loads.map((one) => one.stop()))
    await fleet.allConnected(90_000)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('edge cut off', run)
    // The other edge's devices have not noticed.
    const handled = elsewhere.flatMap(({ log }) => log.processes.flatMap((process) => process.handled))
    const handledAt = new Map(handled.map((one) => [one.messageId, one.handledAt]))
    const delays = publisher.published
      .filter(({ sentAt }) => sentAt > cutAt && sentAt < healedAt)
      .flatMap(({ sentAt, answer }) => (handledAt.get(answer?.messageId ?? '') ?? Number.NaN) - sentAt)
      .filter((delayMs) => !Number.isNaN(delayMs))
    expect(delays.length).toBeGreaterThan(100)
    expect(delays.filter((delayMs) => delayMs > 3_000).length).toBeLessThan(delays.length / 100)
    // A call that is answered so is told the truth, and may be repeated: on a busy machine a few run into a deadline.
    const told = failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])
    expect(told).toEqual([])
    expect(failures(publisher.published).length).toBeLessThan(publisher.published.length / 20)
    expect(plane.settled().filter(({ state }) => state === 'STORED').length).toBeGreaterThan(20)
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'devices that flap between two edges while they are pushed to get everything, each message once',
  async () => {
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 2,
      deviceCount: 10,
    })
    const running = load({ publisherCount: 4 })
    const flapping = setInterval(() => {
      for (const [index, device] of fleet.devices.entries()) {
        if (index % 2 === 0) device.closeConnection()
        else device.cutConnection()
      }
    }, 300)
    onTestFinished(() => clearInterval(flapping))
    await delay(10_000)
    clearInterval(flapping)
    await running.stop()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('devices flap', run)
    expect(failures(publisher.published)).toEqual([])
    expect(fleet.logs.flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions)).length).toBeGreaterThan(100)
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'two devices with one id: one of them is connected at a time, every message comes to one of them, none waits',
  async () => {
    const { plane, fleet, run, load, random, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 2,
      deviceCount: 10,
    })
    const running = load({ publisherCount: 4 })
    await delay(1_000)
    const edgeAddress = (index: number) => nth(plane.edges, index % 2).fact('device_address')
    const twins = fleet.devices.map(
      ({ deviceId }, index) => new FleetDevice(deviceId, { nextEdge: () => edgeAddress(index), random }),
    )
    onTestFinished(async () => {
      await Promise.all(twins.map((twin) => twin.stop()))
    })
    for (const twin of twins) twin.start()
    const isAlone = (index: number) => nth(twins, index).connected !== nth(fleet.devices, index).connected
    expect(await until(() => twins.every((twin, index) => twin.connected && isAlone(index)), 15_000)).toBe(true)
    await delay(3_000)
    await running.stop()
    // Two processes with one id, as the plane sees them.
    const logs = () =>
      fleet.logs.map((log, index) => ({ ...log, processes: [...log.processes, ...nth(twins, index).log.processes] }))
    const seen = {
      ...run,
      fleet: {
        ...fleet,
        get logs() {
          return logs()
        },
      },
    }
    await untilSettled(seen, settleTimeoutMs)
    await expectAllDelivered('two devices with one id', seen)
    expect(failures(publisher.published)).toEqual([])
    expect(twins.some(({ log }) => log.processes.some(({ handled }) => handled.length > 0))).toBe(true)
  },
  testTimeoutMs,
)
