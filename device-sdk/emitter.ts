/** Hands events of a fixed set to whoever listens. */
export interface Emitter<Events> {
  /** Calls `listener` at each such event until the returned function is called. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void
  emit<Name extends keyof Events>(name: Name, event: Events[Name]): void
}

export function createEmitter<Events>(): Emitter<Events> {
  const listeners: { [Name in keyof Events]?: Set<(event: Events[Name]) => void> } = {}
  return {
    on(name, listener) {
      const set = listeners[name] ?? new Set()
      listeners[name] = set
      set.add(listener)
      return () => set.delete(listener)
    },
    emit(name, event) {
      for (const listener of [...(listeners[name] ?? [])]) {
        try {
          listener(event)
        } catch (error) {
          // As with the platform's own events: a listener's mistake shows up as an uncaught error, and the connection goes on.
          queueMicrotask(() => {
            throw error
          })
        }
      }
    },
  }
}
