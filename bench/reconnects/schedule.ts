/** What is to happen when, in ms of a simulated time that begins at 0. */
export interface Schedule {
  /** Runs it in the tick of that time, or in the present one when that has passed. */
  add(atMs: number, run: (nowMs: number) => void): void
  /** Runs what is due before this, also what is added meanwhile, tick after tick, in each in the order in which it was added. */
  runUntil(endMs: number): void
}

const tickMs = 10

/** Exact enough for counts a second, and cheap where a fleet plans millions of things. */
export function createSchedule(): Schedule {
  const ticks = new Map<number, ((nowMs: number) => void)[]>()
  let now = 0
  return {
    add(atMs, run) {
      const tick = Math.max(now, Math.ceil(atMs / tickMs))
      const planned = ticks.get(tick)
      if (planned === undefined) ticks.set(tick, [run])
      else planned.push(run)
    },
    runUntil(endMs) {
      for (; now * tickMs < endMs; now++) {
        // Grows while it runs.
        for (const run of ticks.get(now) ?? []) run(now * tickMs)
        ticks.delete(now)
      }
    },
  }
}
