import type { Clock, Timer } from './clock.ts'
import type { Log } from './log.ts'

/** What must be closed when a process, or a part of it, stops. */
export interface Closers {
  /** Remembers how to close something, at the line that opened it. Added while closing, it is closed at once. */
  add(name: string, close: () => void | Promise<void>): void
  /**
   * Closes all, last opened first, one after the other. A failure is logged and stops nothing. Everything together has
   * `graceMs`; what is then still to come is started all at once and has `forceMs` (default 1000) more. Never rejects.
   * A second call joins the first, and may shorten its grace.
   */
  close(bounds: { graceMs: number; forceMs?: number }): Promise<CloseResult>
}

/** How closing went. */
export interface CloseResult {
  /** Names of what had not ended when the time was over. */
  readonly late: string[]
}

interface Entry {
  readonly name: string
  readonly close: () => void | Promise<void>
}

/** Opens an empty list. */
export function createClosers(log: Log, clock: Clock): Closers {
  const entries: Entry[] = []
  const running = new Map<Entry, Promise<void>>()
  const graceOver = Promise.withResolvers<void>()
  const timers = new Set<Timer>()
  let closing: Promise<CloseResult> | undefined

  const start = (entry: Entry): Promise<void> => {
    const ended = (async () => {
      try {
        await entry.close()
      } catch (cause) {
        log.error('closing failed', { what: entry.name, cause })
      } finally {
        running.delete(entry)
      }
    })()
    running.set(entry, ended)
    return ended
  }

  const closeAll = async (forceMs: number): Promise<CloseResult> => {
    let graceLeft = true
    void graceOver.promise.then(() => {
      graceLeft = false
    })
    for (let entry = entries.pop(); entry !== undefined; entry = entries.pop()) {
      const ended = start(entry)
      if (graceLeft) await Promise.race([ended, graceOver.promise])
    }
    if (running.size > 0) {
      const forceOver = new AbortController()
      const waited = clock.sleep(forceMs, forceOver.signal).catch(() => {})
      await Promise.race([Promise.all(running.values()), waited])
      forceOver.abort()
    }
    for (const timer of timers) timer.cancel()
    const late = [...running.keys()].map((entry) => entry.name)
    if (late.length > 0) log.error('some parts did not close in time', { late })
    return { late }
  }

  return {
    add(name, close) {
      const entry = { name, close }
      if (closing === undefined) entries.push(entry)
      else void start(entry)
    },
    close({ graceMs, forceMs = 1000 }) {
      timers.add(clock.after(graceMs, () => graceOver.resolve()))
      closing ??= closeAll(forceMs)
      return closing
    },
  }
}
