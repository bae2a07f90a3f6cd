/** Where the SDK gets its jitter from. */
export interface Random {
  /** A number from 0 up to, but not including, 1. */
  next(): number
}

/** Good enough to spread devices over time; not for secrets, and the SDK makes none. */
export const systemRandom: Random = { next: () => Math.random() }
