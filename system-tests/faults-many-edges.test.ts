import { setTimeout as delay } from 'node:timers/promises'
import { expect, onTestFinished, test } from 'vitest'
import {
  comeBackTimeoutMs,
  expectAllDelivered,
  expectFewRefused,
  nth,
  settleTimeoutMs,
  shortLeases,
  startRun,
  testTimeoutMs,
} from './fault-run.ts'
import { expectNoOrphans } from './orphans.ts'
import { until, untilSettled } from './run.ts'

/** Of each priority, on each router: far less than what is meant for the dead. */
const inFlightMax = 64

test(
  'a third of all edges killed under load, and many devices gone with them: those of the others do not notice, in flight stays bounded, and all comes in the end',
  async () => {
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      // With five and more, so many at once are suspect first, and count as gone only two lease periods later.
      edgeCount: 6,
      deviceCount: 120,
      ...shortLeases,
      routerEnv: { ROUTER_HOLD_TIME_MS: '30000', ROUTER_IN_FLIGHT_MAX: String(inFlightMax) },
    })
    const dead = plane.edges.slice(0, 2)
    const atDead = fleet.devices.filter(({ connectedTo }) => dead.some((edge) => edge.fact('device_address') === connectedTo))
    const away = atDead.filter((_, index) => index % 2 === 0)
    const others = fleet.devices.filter((device) => !atDead.includes(device)).map(({ deviceId }) => deviceId)
    const moving = atDead.filter((device) => !away.includes(device)).map(({ deviceId }) => deviceId)
    expect(Math.min(away.length, moving.length)).toBeGreaterThan(5)
    const handled = () =>
      new Map(
        fleet.logs
          .flatMap(({ processes }) => processes.flatMap((one) => one.handled))
          .map((one) => [one.messageId, one.handledAt]),
      )

    const loads = [
      load({ directShare: 0, publisherCount: 4, deviceIds: others, pauseMs: 50, ttlMs: 600_000 }),
      load({ directShare: 1, publisherCount: 4, deviceIds: others, pauseMs: 50, ttlMs: 600_000 }),
      load({ directShare: 0, publisherCount: 2, deviceIds: moving, pauseMs: 50, ttlMs: 600_000 }),
    ]
    expect(await until(() => handled().size > 200, settleTimeoutMs)).toBe(true)

    // Frozen first, so that no edge hears that devices leave: their rows stay.
    for (const edge of dead) edge.pause()
    await Promise.all(away.map((device) => device.stop()))
    await Promise.all(dead.map((edge) => edge.kill()))
    const killedAt = Date.now()
    const inFlight: number[] = []
    const sampling = setInterval(() => {
      for (const router of [0, 1]) void plane.inFlight(router).then((count) => inFlight.push(count))
    }, 250)
    onTestFinished(() => clearInterval(sampling))
    // More than all budgets together hold, for devices that nobody can reach.
    const count = inFlightMax * 3 * 2 + 216
    const priorities = ['HIGH', 'NORMAL', 'LOW'] as const
    const forDead = await Promise.all(
      Array.from({ length: count }, (_, index) =>
        publisher.publish(index % 2, {
          deviceId: nth(away, index % away.length).deviceId,
          mode: 'QUEUED',
          priority: nth(priorities, index % 3),
          ttlMs: 600_000,
        }),
      ),
    )
    const isSettled = () => {
      const settled = new Set(plane.settled().map(({ messageId }) => messageId))
      return forDead.every(({ answer }) => answer === undefined || settled.has(answer.messageId))
    }
    expect(await until(isSettled, 60_000)).toBe(true)
    const releasedAt = Date.now()
    // Those who have moved elsewhere, and all others, go on for a moment.
    await delay(1_000)
    clearInterval(sampling)
    await Promise.all(loads.map((one) => one.stop()))
    for (const device of away) device.start()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    await expectNoOrphans(run)
    await untilSettled(run, settleTimeoutMs)
    await expectAllDelivered('a third of all edges killed', run)

    // Nobody at the other edges has waited for the dead: what was sent in the first half of the time for which these were held has long come when they are let go.
    const handledAt = handled()
    const toOthers = publisher.published.filter(
      ({ deviceId, sentAt }) => others.includes(deviceId) && sentAt > killedAt && sentAt < (killedAt + releasedAt) / 2,
    )
    const accepted = toOthers.flatMap(({ answer }) => answer ?? [])
    const waited = accepted.filter(({ messageId }) => !((handledAt.get(messageId) ?? Number.NaN) < releasedAt))
    process.stderr.write(`held for ${releasedAt - killedAt} ms; of ${accepted.length} to others ${waited.length} have waited\n`)
    expect(accepted.length).toBeGreaterThan(20)
    expect(waited.length).toBeLessThanOrEqual(accepted.length / 20)
    const direct = toOthers.filter(({ mode }) => mode === 'DIRECT')
    expectFewRefused(direct)
    const putOff = direct.filter(({ answer }) => answer !== undefined && answer.state !== 'ACKNOWLEDGED')
    expect(putOff.length).toBeLessThanOrEqual(direct.length / 20)
    expect(inFlight.length).toBeGreaterThan(10)
    expect(Math.max(...inFlight)).toBeLessThanOrEqual(inFlightMax * priorities.length)
  },
  testTimeoutMs,
)
