import process from 'node:process'

/** Who wants to know that the operator has changed something and says so. */
export interface Reloads {
  /** Has `run` called at each reload, until the returned function is called. It must not throw. */
  onReload(run: () => void): () => void
}

/**
 * Reloads at SIGHUP. The signal is caught only while somebody listens: a process that has nothing to read again ends by it, as when its terminal
 * is closed.
 */
export function reloadsBySignal(): Reloads {
  const listeners = new Set<() => void>()
  const onSignal = () => {
    for (const run of [...listeners]) run()
  }
  return {
    onReload(run) {
      // A function of its own, so that the same listener may be added twice.
      const listener = () => run()
      if (listeners.size === 0) process.on('SIGHUP', onSignal)
      listeners.add(listener)
      return () => {
        if (listeners.delete(listener) && listeners.size === 0) process.off('SIGHUP', onSignal)
      }
    },
  }
}
