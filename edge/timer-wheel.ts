import type { Clock } from '../service-kit/clock.ts'

/** Something that has one next moment at which to look after itself. */
export interface WheelItem {
  /** Where the wheel keeps it; -1 when it does not. The wheel alone sets it. */
  wheelSlot: number
  /** Called once that moment is past. Returns the next one (monotonic, ms), or Infinity for none. */
  due(nowMs: number): number
}

/** One timer for very many deadlines. They are kept to a tick: never early, and late by less than one. */
export interface TimerWheel {
  /** Sets the item's one moment (monotonic, ms), whether it had one or not. */
  schedule(item: WheelItem, dueAt: number): void
  remove(item: WheelItem): void
  readonly size: number
  stop(): void
}

/** A wheel of `slotCount` slots of `tickMs` each. A moment beyond one turn is asked again at the end of the turn. */
export function createTimerWheel(options: { clock: Clock; tickMs: number; slotCount?: number }): TimerWheel {
  const { clock, tickMs, slotCount = 512 } = options
  const slots = Array.from({ length: slotCount }, () => new Map<WheelItem, number>())
  let reachedTick = Math.floor(clock.monotonic() / tickMs)
  let size = 0

  const slotAt = (index: number): Map<WheelItem, number> => {
    const slot = slots[index]
    if (slot === undefined) throw new RangeError(`the wheel has no slot ${index}`)
    return slot
  }

  const remove = (item: WheelItem) => {
    if (item.wheelSlot < 0) return
    slotAt(item.wheelSlot).delete(item)
    item.wheelSlot = -1
    size--
  }

  const schedule = (item: WheelItem, dueAt: number) => {
    remove(item)
    if (dueAt === Number.POSITIVE_INFINITY) return
    // Rounded up, so that nothing is early; at least the next tick, as the present one is being worked through.
    const tick = Math.min(Math.max(Math.ceil(dueAt / tickMs), reachedTick + 1), reachedTick + slotCount - 1)
    item.wheelSlot = tick % slotCount
    slotAt(item.wheelSlot).set(item, dueAt)
    size++
  }

  const turn = () => {
    const nowMs = clock.monotonic()
    const nowTick = Math.floor(nowMs / tickMs)
    // After a stall of more than a turn every slot is visited once.
    const firstTick = Math.max(reachedTick + 1, nowTick - slotCount + 1)
    for (let tick = firstTick; tick <= nowTick; tick++) {
      reachedTick = tick
      for (const [item, dueAt] of [...slotAt(tick % slotCount)]) {
        if (item.wheelSlot !== tick % slotCount) continue // removed by one before it
        schedule(item, dueAt <= nowMs ? item.due(nowMs) : dueAt)
      }
    }
  }

  const timer = clock.every(tickMs, turn)
  return {
    schedule,
    remove,
    get size() {
      return size
    },
    stop: () => timer.cancel(),
  }
}
