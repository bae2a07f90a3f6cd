import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import {
  comeBackTimeoutMs,
  expectAllDelivered,
  type FaultRun,
  nth,
  settleTimeoutMs,
  startRun,
  testTimeoutMs,
} from './fault-run.ts'
import { untilServing } from './plane/plane.ts'
import type { ServiceProcess } from './plane/service-process.ts'
import { failures, until, untilFinished, untilSettled } from './run.ts'

/** Puts messages into routers that cannot hand them on: no stream to an edge has ever been opened, and the edges do not answer. */
async function fillRouters({ plane, publisher, fleet, deviceIds }: FaultRun): Promise<number> {
  for (const edge of plane.edges) edge.pause()
  const count = 150
  const priorities = ['HIGH', 'NORMAL', 'LOW'] as const
  await Promise.all(
    Array.from({ length: count }, (_, index) =>
      publisher.publish(index % plane.routers.length, {
        deviceId: deviceIds[index % deviceIds.length] ?? '',
        mode: 'QUEUED',
        priority: priorities[index % 3] ?? 'LOW',
        ttlMs: 60_000,
      }),
    ),
  )
  expect(failures(publisher.published)).toEqual([])
  const inFlight = async () => (await Promise.all(plane.routers.map((_, index) => plane.inFlight(index)))).reduce((a, b) => a + b)
  await expect.poll(inFlight, { timeout: 10_000 }).toBe(count)
  expect(fleet.logs.flatMap(({ processes }) => processes.flatMap(({ handled }) => handled))).toEqual([])
  return count
}

const resumeAll = (services: readonly ServiceProcess[]) => {
  for (const service of services) service.resume()
}

test(
  'kill -9 of a router between consume and deliver: the other one delivers what it had',
  async () => {
    const started = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 50 })
    const { plane, run } = started
    const count = await fillRouters(started)
    // How the partitions are shared is the group's affair: the one that holds more is killed.
    const [first = 0, second = 0] = await Promise.all([plane.inFlight(0), plane.inFlight(1)])
    expect(Math.max(first, second)).toBeGreaterThan(0)
    const victim = nth(plane.routers, first >= second ? 0 : 1)
    await victim.kill()
    resumeAll(plane.edges)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('router killed', run)
    // The dead one has ended nothing: all of it is the other one's work.
    expect(new Set(plane.settled().map(({ messageId }) => messageId)).size).toBe(count)
    expect(victim.lines().filter(({ phrase }) => phrase === 'message settled')).toEqual([])
  },
  testTimeoutMs,
)

test(
  'kill -9 of the only router between consume and deliver: it delivers after its restart',
  async () => {
    const started = await startRun({ registryCount: 1, routerCount: 1, edgeCount: 2, deviceCount: 50 })
    const { plane, run } = started
    await fillRouters(started)
    const router = nth(plane.routers, 0)
    await router.kill()
    resumeAll(plane.edges)
    await router.restart()
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered('only router restarted', run)
  },
  testTimeoutMs,
)

test(
  'kill -9 of one of two registries while devices move and messages come: nothing is lost',
  async () => {
    const { plane, fleet, run, load } = await startRun({ registryCount: 2, routerCount: 2, edgeCount: 2, deviceCount: 100 })
    const running = load()
    const stopMoving = fleet.move({ meanStayMs: 5_000 })
    await delay(2_000)
    await nth(plane.registries, 0).kill()
    await delay(5_000)
    await nth(plane.registries, 0).restart()
    await delay(2_000)
    await running.stop()
    await stopMoving()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('one registry killed', run)
    // A call that meets the registry's death may be told so.
    expect(failures(run.publisher.published, ['UNAVAILABLE'])).toEqual([])
  },
  testTimeoutMs,
)

test(
  'kill -9 of both registries while messages come: all that is accepted is delivered once they are back',
  async () => {
    const { plane, run, load, publisher } = await startRun({ registryCount: 2, routerCount: 2, edgeCount: 2, deviceCount: 100 })
    // Direct calls wait meanwhile; those who use the queue do not.
    const loads = [load({ directShare: 0 }), load({ directShare: 1, publisherCount: 4 })]
    await delay(1_000)
    await Promise.all(plane.registries.map((registry) => registry.kill()))
    const killedAt = Date.now()
    await delay(4_000)
    await Promise.all(plane.registries.map((registry) => registry.restart()))
    await delay(1_000)
    await Promise.all(loads.map((one) => one.stop()))
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('both registries killed', run)
    // The queue took messages all the while.
    const queued = publisher.published.filter(({ mode }) => mode === 'QUEUED')
    expect(failures(queued)).toEqual([])
    expect(queued.filter(({ sentAt }) => sentAt > killedAt && sentAt < killedAt + 4_000).length).toBeGreaterThan(50)
  },
  testTimeoutMs,
)

test(
  'kill -9 of an edge under load: its devices get everything elsewhere, also beside its successor',
  async () => {
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 1,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 150,
    })
    const running = load()
    await delay(2_000)
    const edge = nth(plane.edges, 0)
    const before = fleet.logs.flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions)).length
    await edge.kill()
    await delay(3_000)
    // Another edge, at the address of the dead one.
    await edge.restart()
    await delay(2_000)
    await running.stop()
    await fleet.allConnected(90_000)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('edge killed', run)
    expect(failures(publisher.published)).toEqual([])
    const after = fleet.logs.flatMap(({ processes }) => processes.flatMap(({ sessions }) => sessions)).length
    expect(after - before).toBeGreaterThan(20)
  },
  testTimeoutMs,
)

test(
  'SIGTERM of an edge under load: its devices move, nothing is lost, and it exits with 0',
  async () => {
    const { plane, fleet, run, load, publisher, closedEdges } = await startRun({
      registryCount: 1,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 150,
    })
    const running = load()
    await delay(2_000)
    const edge = nth(plane.edges, 0)
    closedEdges.add(edge)
    expect(await edge.stop()).toEqual({ code: 0, signal: null })
    await delay(500)
    await running.stop()
    await fleet.allConnected(90_000)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('edge stopped', run)
    expect(failures(publisher.published)).toEqual([])
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test.each([
  ['SIGTERM', 0],
  ['SIGKILL', null],
] as const)(
  '%s of a router under load: what it has accepted is delivered',
  async (signal, code) => {
    const { plane, run, load, publisher } = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 100 })
    const running = load({ pauseMs: 50 })
    await delay(2_000)
    const router = nth(plane.routers, 0)
    const end = await (signal === 'SIGTERM' ? router.stop() : router.kill())
    expect(end.code).toBe(code)
    await delay(1_000)
    await router.restart()
    await untilServing(router.fact('address'))
    await delay(1_000)
    await running.stop()
    await untilFinished(run, settleTimeoutMs)
    await expectAllDelivered(`router ended by ${signal}`, run)
    // Calls that failed were told to be repeated.
    expect(failures(publisher.published, ['UNAVAILABLE'])).toEqual([])
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'an edge that hangs for longer than routers wait for an outcome: each message is handled once',
  async () => {
    const { plane, run, load, publisher } = await startRun({ registryCount: 1, routerCount: 2, edgeCount: 2, deviceCount: 100 })
    const running = load()
    await delay(1_000)
    const edge = nth(plane.edges, 0)
    edge.pause()
    await delay(7_000)
    edge.resume()
    await delay(1_000)
    await running.stop()
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('edge paused', run)
    expect(failures(publisher.published)).toEqual([])
    expect(plane.defects()).toEqual([])
  },
  testTimeoutMs,
)

test(
  'a fleet that has no edge to go to waits, and says so',
  async () => {
    const { plane, fleet } = await startRun({ registryCount: 1, routerCount: 1, edgeCount: 1, deviceCount: 5 })
    await nth(plane.edges, 0).kill()
    expect(await until(() => fleet.devices.every(({ connected }) => !connected), 5_000)).toBe(true)
    await expect(fleet.allConnected(500)).rejects.toThrow('5 devices have no session after 500 ms')
    await nth(plane.edges, 0).restart()
    await fleet.allConnected(90_000)
  },
  testTimeoutMs,
)
