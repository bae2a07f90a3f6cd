import { setTimeout as delay } from 'node:timers/promises'
import type { Random } from '../../service-kit/random.ts'
import type { DeviceLog } from '../story.ts'
import { FleetDevice } from './fleet-device.ts'

export interface FleetOptions {
  readonly deviceCount: number
  /** `host:port` of the edges that take connections now. */
  readonly edges: () => readonly string[]
  /** Decides everything that is left to chance. */
  readonly random: Random
  /** Accounts that devices log in to, in turn. Default: none. */
  readonly accountIds?: readonly string[]
}

/** How devices move about. */
export interface Moving {
  /** How long a device stays on average before it does something, in ms. */
  readonly meanStayMs: number
  /** Share of restarts after which a device belongs to another account. Default 0. */
  readonly changesAccountShare?: number
}

/** Many devices, and something that keeps them moving. */
export interface Fleet {
  readonly devices: readonly FleetDevice[]
  readonly logs: readonly DeviceLog[]
  /** Resolves when each device has an open session; rejects after `timeoutMs`. */
  allConnected(timeoutMs: number): Promise<void>
  /** Lets devices close, lose and restart their connections at random until the returned function is called; it resolves when no restart is half done. */
  move(moving: Moving): () => Promise<void>
  close(): Promise<void>
}

/** What a device does when its time has come; the shares add up to 1. */
const moves = [
  { share: 0.4, kind: 'close' },
  { share: 0.35, kind: 'cut' },
  { share: 0.2, kind: 'restart' },
  { share: 0.05, kind: 'stay away' },
] as const

const tickMs = 20
const restartPauseMaxMs = 500
const awayMs = { min: 1_000, max: 3_000 }
/** Connecting all in one moment is another test's matter. */
const startedPerTick = 10

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { deviceCount, edges, random, accountIds = [] } = options
  const pick = <T>(choices: readonly T[]): T | undefined => choices[Math.floor(random.next() * choices.length)]
  const devices = Array.from(
    { length: deviceCount },
    (_, index) =>
      new FleetDevice(`device-${index + 1}`, {
        nextEdge: () => pick(edges()),
        random,
        accountId: accountIds[index % accountIds.length],
      }),
  )
  for (const [index, device] of devices.entries()) {
    device.start()
    if (index % startedPerTick === startedPerTick - 1) await delay(tickMs)
  }

  const restarting = new Set<Promise<void>>()
  const busy = new Set<FleetDevice>()

  async function restart(device: FleetDevice, pauseMs: number, changesAccount: boolean): Promise<void> {
    busy.add(device)
    await device.stop()
    await delay(pauseMs)
    if (changesAccount) device.logInTo(pick(accountIds))
    device.start()
    busy.delete(device)
  }

  function moveOne(device: FleetDevice, changesAccountShare: number): void {
    let chance = random.next()
    const move = moves.find(({ share }) => {
      chance -= share
      return chance < 0
    })
    const { min, max } = awayMs
    if (move?.kind === 'close') device.closeConnection()
    else if (move?.kind === 'cut') device.cutConnection()
    else {
      const pauseMs = move?.kind === 'restart' ? random.next() * restartPauseMaxMs : min + random.next() * (max - min)
      const done = restart(device, pauseMs, random.next() < changesAccountShare).finally(() => restarting.delete(done))
      restarting.add(done)
    }
  }

  return {
    devices,
    get logs() {
      return devices.map(({ log }) => log)
    },
    async allConnected(timeoutMs) {
      const giveUpAt = Date.now() + timeoutMs
      for (;;) {
        const missing = devices.filter(({ connected }) => !connected)
        if (missing.length === 0) return
        if (Date.now() > giveUpAt) {
          const names = missing.slice(0, 5).map(({ deviceId, lastClose }) => `${deviceId} (${lastClose})`)
          throw new Error(`${missing.length} devices have no session after ${timeoutMs} ms: ${names.join(', ')} …`)
        }
        await delay(tickMs)
      }
    },
    move({ meanStayMs, changesAccountShare = 0 }) {
      let owed = 0
      const timer = setInterval(() => {
        owed += (tickMs / meanStayMs) * devices.length
        for (; owed >= 1; owed--) {
          const device = pick(devices)
          if (device !== undefined && !busy.has(device)) moveOne(device, changesAccountShare)
        }
      }, tickMs)
      return async () => {
        clearInterval(timer)
        await Promise.all(restarting)
      }
    },
    async close() {
      await Promise.all(restarting)
      await Promise.all(devices.map((device) => device.stop()))
    },
  }
}
