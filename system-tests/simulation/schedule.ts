import { check } from '../checker.ts'
import { connectPublisher } from '../plane/publisher.ts'
import { readRest } from '../rest.ts'
import type { Story } from '../story.ts'
import { type BrokenRule, broken, brokenRules, type RuleName } from './broken-rules.ts'
import { planFaults } from './faults.ts'
import { startLoad } from './load.ts'
import { SimulatedDevice } from './simulated-device.ts'
import { SimulatedPlane } from './simulated-plane.ts'
import { SimulatedProcess } from './simulated-process.ts'
import { withVirtualTurns } from './virtual-time.ts'
import { World } from './world.ts'

/** What one schedule came to. */
export interface ScheduleEnd {
  /** One sentence each; empty when all promises were kept. */
  readonly violations: readonly string[]
  readonly trace: readonly string[]
  readonly accepted: number
  readonly delivered: number
  /** Names of the faults that came. */
  readonly faults: readonly string[]
}

export interface ScheduleOptions {
  readonly traced?: boolean
  /** Nothing goes wrong. */
  readonly calm?: boolean
  /** What goes wrong is what this rule is there for, and the rule holds. */
  readonly faultsOf?: RuleName
  /** A rule that is broken on purpose, and what goes wrong is what it is there for. */
  readonly brokenRule?: RuleName
}

const shortTimes = {
  registryEnv: { REGISTRY_EDGE_LEASE_PERIOD_MS: '5000', REGISTRY_EDGE_READ_PERIOD_MS: '1000' },
  routerEnv: { ROUTER_HOLD_TIME_MS: '6000', ROUTER_ACK_TIMEOUT_MS: '2000', ROUTER_LOOKUP_DEADLINE_MS: '1000' },
  edgeEnv: {
    EDGE_LEASE_TTL_MS: '5000',
    // Faults come within seconds of each other here: devices change their edges as often as otherwise in hours.
    EDGE_TAKEOVERS_MAX: '100',
    EDGE_PING_INTERVAL_MS: '4000',
    EDGE_PONG_TIMEOUT_MS: '2000',
    EDGE_DRAIN_NOTICE_MS: '300',
    EDGE_DRAIN_MS: '1000',
    EDGE_DRAIN_GRACE_MS: '1000',
  },
}
/** Until all have found one another, ms. */
const warmUpMs = 1_500
const loadMs = 9_000
/** Longest time for everything to come to rest after the faults, ms. A superseded device comes back after 30 to 60 s. */
const restMaxMs = 150_000
/** So long all devices have been there before the plane is asked, ms. */
const stableMs = 4_000
/** How long the plane has for its answers, ms. */
const readTimeoutMs = 15_000

/** Runs one schedule: everything in it comes of the seed. */
export function runSchedule(seed: number, options: ScheduleOptions = {}): Promise<ScheduleEnd> {
  return withVirtualTurns(async () => {
    broken.rule = options.brokenRule
    try {
      return await run(seed, options)
    } finally {
      broken.rule = undefined
    }
  })
}

async function run(seed: number, options: ScheduleOptions): Promise<ScheduleEnd> {
  const world = new World(seed, options.traced === true)
  const calm = options.calm === true
  const breakage: BrokenRule | undefined = options.brokenRule && brokenRules[options.brokenRule]
  const focus: BrokenRule | undefined = breakage ?? (options.faultsOf && brokenRules[options.faultsOf])
  const plane = new SimulatedPlane(world, {
    registryClocksAheadMs: calm || world.chance(0.3) ? [0] : [0, 5_000],
    routerCount: calm || world.chance(0.3) ? 1 : 2,
    edgeCount: calm ? 1 : world.pick([2, 2, 2, 3, 3, 5]),
    ...shortTimes,
    brokenStores: breakage?.stores,
  })
  const devices = Array.from(
    { length: world.count(2, 4) },
    (_, index) => new SimulatedDevice(plane, `device-${index + 1}`, world.pick(['', 'account-a', 'account-a', 'account-b'])),
  )
  await world.time.run(warmUpMs)
  for (const device of devices) device.start()
  const desk = new SimulatedProcess(world, 'publisher#1')
  const publisher = connectPublisher(
    plane.routers.map(({ address }) => address),
    desk.clock,
  )
  const faults = calm ? undefined : planFaults({ plane, devices, fromMs: warmUpMs, toMs: warmUpMs + loadMs, only: focus?.faults })
  const load = startLoad({
    world,
    publisher,
    devices,
    routerCount: plane.routers.length,
    endsAtMs: warmUpMs + loadMs,
    clock: desk.clock,
  })
  await world.time.run(warmUpMs + loadMs)
  faults?.stop()
  const limitMs = world.time.now + restMaxMs
  // What a device believes is not enough: its line may be dead.
  const isThere = ({ connected, openLines }: SimulatedDevice) => connected && openLines.length > 0
  // A session may still be closed by what an older one of its device had begun; then the device comes back, half a minute later.
  for (let since = Number.POSITIVE_INFINITY; world.time.now < Math.min(limitMs, since + stableMs); ) {
    if (!load.done || !devices.every(isThere)) since = Number.POSITIVE_INFINITY
    else since = Math.min(since, world.time.now)
    await world.time.run(world.time.now + 250)
  }
  const twins = faults?.twins ?? []
  // As the plane sees them, two devices with one id are one.
  const logs = devices.map(({ deviceId, log }) => ({
    deviceId,
    processes: [log, ...twins.map((twin) => twin.log)]
      .filter((one) => one.deviceId === deviceId)
      .flatMap(({ processes }) => processes),
  }))
  let story: Story | undefined
  let readFailure: unknown
  readRest({ plane, publisher, fleet: { logs } }, readTimeoutMs, desk.clock).then(
    (rest) => {
      story = { published: publisher.published, devices: logs, settled: world.settled, rest }
    },
    (cause: unknown) => {
      readFailure = cause
    },
  )
  await until(world, limitMs + readTimeoutMs * 2, () => story !== undefined || readFailure !== undefined)
  const violations = [...world.defects, ...world.writtenTwice, ...load.violations([...devices, ...twins])]
  if (!load.done) violations.push('a publish call was never answered')
  for (const device of devices) if (!isThere(device)) violations.push(`${device.deviceId} is not connected at rest`)
  let counts = { accepted: 0, delivered: 0 }
  if (story === undefined) violations.push(`the plane does not answer at rest: ${readFailure}`)
  else {
    const { published } = story
    const judged = (as: string) => published.filter((message) => load.judgementOf(message) === as)
    const strict = check({ ...story, published: judged('strict') }, { edgesGone: faults?.edgesGone === true })
    // Of these only what no fault explains counts.
    const brief = check({ ...story, published: judged('brief') }, { edgesGone: true })
    const nowOrNever = check({ ...story, published: judged('now or never') }, { edgesGone: true, dropReasons: ['ACK_TIMEOUT'] })
    violations.push(...new Set([strict, brief, nowOrNever].flatMap((report) => report.violations)))
    counts = strict.counts
  }
  return {
    violations,
    trace: world.lines,
    accepted: counts.accepted,
    delivered: counts.delivered,
    faults: faults?.names ?? [],
  }
}

async function until(world: World, limitMs: number, holds: () => boolean): Promise<void> {
  while (!holds() && world.time.now < limitMs) await world.time.run(Math.min(limitMs, world.time.now + 250))
}
