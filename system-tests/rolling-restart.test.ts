import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import { type EdgeDrain, EdgeDrainState, OperationsServiceDefinition } from '../gen/push/v1/operations.ts'
import { systemClock } from '../service-kit/clock.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { comeBackTimeoutMs, expectAllDelivered, nth, settleTimeoutMs, startRun, testTimeoutMs } from './fault-run.ts'
import type { ServiceProcess } from './plane/service-process.ts'
import { failures, untilSettled } from './run.ts'

/** How many devices a drain has asked to leave, also of those that have left. */
const askedOf = (drain: EdgeDrain | undefined) =>
  drain === undefined ? 0 : drain.startConnectionCount - drain.connectionCount + drain.toldCount

/** How long the balancer of this test goes on sending devices to an edge that is not ready. */
const balancerMs = 300

test(
  'all edges are restarted one after the other under load: nobody is without a session, and everything arrives',
  async () => {
    const { plane, fleet, run, load, publisher, closedEdges } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 120,
      edgeEnv: { EDGE_DRAIN_NOTICE_MS: '600', EDGE_DRAIN_MS: '2000', EDGE_DRAIN_GRACE_MS: '15000' },
    })
    const connection = connectGrpc({ addresses: plane.routerAddresses.join(','), log: silentLog, clock: systemClock })
    onTestFinished(() => connection.close())
    const operations = connection.client(OperationsServiceDefinition)
    const drainOf = async (edge: ServiceProcess) =>
      (await operations.getEdgeDrain({ edgeId: edge.fact('edge_id') }, { deadlineMs: 10_000 })).drain
    // A registry shows an edge as soon as it has read its lease.
    for (const edge of plane.edges)
      await expect.poll(() => drainOf(edge).catch(() => undefined), { timeout: 20_000 }).toBeDefined()
    const running = load({ pauseMs: 50 })
    await delay(1_000)

    // A drain that is taken back half way: who has not left stays.
    const kept = nth(plane.edges, 2)
    const keptId = { edgeId: kept.fact('edge_id') }
    await operations.drainEdge({ ...keptId, ratePerSecond: 4 }, { deadlineMs: 10_000 })
    await expect.poll(async () => askedOf(await drainOf(kept)), { timeout: 20_000 }).toBeGreaterThan(3)
    const { drain: aborted } = await operations.abortEdgeDrain(keptId, { deadlineMs: 10_000 })
    expect(aborted).toMatchObject({ state: EdgeDrainState.SERVING })
    expect(aborted?.connectionCount).toBeGreaterThan(5)

    for (const [index, edge] of plane.edges.entries()) {
      // One is emptied by an operator first, the others are stopped with all that they hold.
      if (index === 0) {
        await operations.drainEdge({ edgeId: edge.fact('edge_id'), ratePerSecond: 40 }, { deadlineMs: 10_000 })
        await delay(balancerMs)
        closedEdges.add(edge)
        await expect.poll(async () => (await drainOf(edge))?.state, { timeout: 30_000 }).toBe(EdgeDrainState.GONE)
      }
      const stopped = edge.stop()
      await delay(balancerMs)
      closedEdges.add(edge)
      expect(await stopped).toMatchObject({ code: 0 })
      await edge.start()
      closedEdges.delete(edge)
    }
    await running.stop()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('rolling restart', run)
    expect(failures(publisher.published, ['UNAVAILABLE', 'DEADLINE_EXCEEDED'])).toEqual([])
    expect(plane.defects()).toEqual([])
    // Make before break: the next session was open before the last one ended.
    const moves = fleet.logs.flatMap(({ processes }) =>
      processes.flatMap(({ sessions }) =>
        sessions.slice(1).map(({ openedAt }, index) => openedAt - (sessions[index]?.endedAt ?? Number.POSITIVE_INFINITY)),
      ),
    )
    expect(moves.length).toBeGreaterThan(120)
    expect(moves.filter((gapMs) => gapMs > 0).length).toBeLessThan(moves.length / 4)
    // Nobody was sent away for half a minute, as a device is whose place another one has taken.
    expect(Math.max(...fleet.devices.map(({ longestWaitMs }) => longestWaitMs))).toBeLessThan(30_000)
  },
  testTimeoutMs,
)
