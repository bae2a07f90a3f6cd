import { SimulatedDevice } from './simulated-device.ts'
import type { Place, SimulatedPlane } from './simulated-plane.ts'

export interface FaultOptions {
  readonly plane: SimulatedPlane
  readonly devices: readonly SimulatedDevice[]
  readonly fromMs: number
  readonly toMs: number
  /** Exactly these; some of all when undefined. */
  readonly only?: readonly FaultName[] | undefined
}

/** What goes wrong in one schedule. */
export interface Faults {
  readonly names: readonly FaultName[]
  /** Edges were away for so long that their devices had to count as offline. */
  readonly edgesGone: boolean
  /** Second devices under the id of one that there is. */
  readonly twins: readonly SimulatedDevice[]
  /** From now on all is well: what is down starts, what is cut is whole. */
  stop(): void
}

const faultsMax = 3

/** All that may go wrong. */
export const faultNames = [
  'a router dies',
  'an edge dies',
  'a registry dies',
  'an edge is paused past its lease',
  'a router is paused',
  'the store stalls',
  'steps at the store fail',
  'calls are lost',
  'a link is cut',
  'an edge and a router are cut off',
  'connections break',
  'the queue fails',
  'the group is rebalanced',
  'a device flaps',
  'a line is dead',
  'a device does not read',
  'a device does not answer',
  'a device is restarted',
  'a device changes its account',
  'two devices have one id',
] as const

export type FaultName = (typeof faultNames)[number]

/** Chooses what goes wrong, and when. */
export function planFaults({ plane, devices, fromMs, toMs, only }: FaultOptions): Faults {
  const { world, network, broker } = plane
  const names: FaultName[] = []
  const twins: SimulatedDevice[] = []
  const undo = new Set<() => void>()
  let edgesGone = false
  const goodCalls = network.fateOf
  const goodSteps = plane.stepFateOf
  const goodPublishes = broker.fateOf

  /** Undone after a while, or when the faults stop. */
  const forMs = (ms: number, back: () => void) => {
    undo.add(back)
    world.time.after(ms, undefined, () => {
      if (undo.delete(back)) back()
    })
  }
  const restart = (places: readonly Place[], downMs: number) => {
    const place = world.pick(places)
    place.process?.kill()
    forMs(downMs, () => place.start())
  }
  const pairs = () => {
    const namesOf = (places: readonly Place[]) => places.map(({ name }) => name)
    const [registries, routers, edges] = [namesOf(plane.registries), namesOf(plane.routers), namesOf(plane.edges)]
    const all = (some: string[], others: string[]) => some.flatMap((one) => others.map((other) => [one, other] as const))
    return [...all(routers, edges), ...all(registries, edges), ...all(registries, routers)]
  }
  /** Again and again, for a while. */
  const repeat = (count: number, everyMs: { min: number; max: number }, run: () => void) => {
    let goesOn = true
    undo.add(() => {
      goesOn = false
    })
    const next = (left: number) => {
      if (!goesOn || left === 0) return
      run()
      world.time.after(world.between(everyMs.min, everyMs.max), undefined, () => next(left - 1))
    }
    next(count)
  }

  const kinds: Readonly<Record<FaultName, () => void>> = {
    'a router dies': () => restart(plane.routers, world.between(200, 4_000)),
    'an edge dies': () => restart(plane.edges, world.between(200, 7_000)),
    'a registry dies': () => restart(plane.registries, world.between(200, 4_000)),
    'an edge is paused past its lease'() {
      edgesGone = true
      const process = world.pick(plane.edges).process
      process?.pause()
      forMs(world.between(6_000, 12_000), () => process?.resume())
    },
    'a router is paused'() {
      const { process } = world.pick(plane.routers)
      if (process === undefined) return
      process.pause()
      broker.pausedFor(process)
      forMs(world.between(500, 6_000), () => {
        process.resume()
        broker.rebalance()
      })
    },
    'the store stalls'() {
      const untilMs = world.time.now + world.between(1_000, 9_000)
      plane.stepFateOf = () => ({ ...goodSteps(), stalledUntilMs: untilMs })
      forMs(untilMs - world.time.now, () => {
        plane.stepFateOf = goodSteps
      })
    },
    'steps at the store fail'() {
      plane.stepFateOf = () => ({
        ...goodSteps(),
        ...(world.chance(0.15) && { lost: world.pick(['step', 'answer'] as const) }),
        ...(world.chance(0.1) && { requestMs: world.between(10, 2_500) }),
      })
      forMs(world.between(1_000, 5_000), () => {
        plane.stepFateOf = goodSteps
      })
    },
    'calls are lost'() {
      network.fateOf = (from, to) => ({
        ...goodCalls(from, to),
        ...(world.chance(0.08) && { lost: world.pick(['request', 'answer'] as const) }),
        ...(world.chance(0.05) && { requestMs: world.between(10, 2_500) }),
        ...(world.chance(0.05) && { answerMs: world.between(10, 2_500) }),
      })
      forMs(world.between(1_000, 6_000), () => {
        network.fateOf = goodCalls
      })
    },
    'a link is cut'() {
      const [one, other] = world.pick(pairs())
      network.cut(one, other)
      forMs(world.between(200, 9_000), () => network.heal(one, other))
    },
    'an edge and a router are cut off'() {
      const [one, other] = [world.pick(plane.routers).name, world.pick(plane.edges).name]
      network.cut(one, other)
      forMs(world.between(200, 9_000), () => network.heal(one, other))
    },
    'connections break'() {
      repeat(world.count(1, 6), { min: 50, max: 1_500 }, () => network.reset(...world.pick(pairs())))
    },
    'the queue fails'() {
      broker.fateOf = () => ({
        ...goodPublishes(),
        ...(world.chance(0.3) && { lost: world.pick(['record', 'answer'] as const) }),
      })
      forMs(world.between(500, 4_000), () => {
        broker.fateOf = goodPublishes
      })
    },
    'the group is rebalanced': () => repeat(world.count(1, 4), { min: 20, max: 1_500 }, () => broker.rebalance()),
    'a device flaps'() {
      const device = world.pick(devices)
      repeat(world.count(3, 15), { min: 100, max: 700 }, () => {
        for (const line of device.openLines) line.cut()
      })
    },
    'a line is dead': () => {
      for (const line of world.pick(devices).openLines) line.silence()
    },
    'a device does not read'() {
      const lines = world.pick(devices).openLines
      for (const line of lines) line.stall(true)
      forMs(world.between(500, 4_000), () => {
        for (const line of lines) line.stall(false)
      })
    },
    'a device does not answer'() {
      const device = world.pick(devices)
      device.silent = true
      forMs(world.between(1_000, 8_000), () => device.speak())
    },
    'a device is restarted': () => world.pick(devices).restart(),
    'a device changes its account'() {
      const device = world.pick(devices)
      device.changeAccount(device.account === 'account-a' ? 'account-b' : 'account-a')
    },
    'two devices have one id'() {
      const { deviceId, account } = world.pick(devices)
      const twin = new SimulatedDevice(plane, deviceId, account)
      twins.push(twin)
      twin.start()
    },
  }
  // Rare, as the loser of two comes back only after half a minute of virtual time.
  const choices = faultNames.filter((name) => name !== 'two devices have one id' || world.chance(0.3))

  const chosen = only ?? Array.from({ length: world.count(1, faultsMax) }, () => world.pick(choices))
  for (const name of chosen) {
    names.push(name)
    world.time.after(world.between(fromMs, toMs) - world.time.now, undefined, () => {
      world.trace(() => `FAULT: ${name}`)
      kinds[name]()
    })
  }

  return {
    names,
    get edgesGone() {
      return edgesGone
    },
    twins,
    stop() {
      world.trace(() => 'the faults stop')
      for (const back of undo) back()
      undo.clear()
      network.healAll()
      for (const twin of twins) twin.kill()
    },
  }
}
