import { randomBytes } from 'node:crypto'

/** Chance as the services see it, so that tests can decide it. */
export interface Random {
  /** A number from 0 (included) to 1 (excluded). For jitter and choice, never for secrets. */
  next(): number
  /** So many random bytes; from `systemRandom` they are fit for identifiers that must not be guessed. */
  bytes(length: number): Uint8Array
}

/** The machine's randomness. */
export const systemRandom: Random = {
  next: () => Math.random(),
  bytes: (length) => randomBytes(length),
}

/** The same sequence for the same seed, on every machine. For tests and simulations only. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0
  // An additive counter whose value is scrambled by two multiply-and-shift rounds: short, and even enough for tests.
  const nextWord = (): number => {
    state = (state + 0x9e3779b9) >>> 0
    let word = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97)
    return (word ^ (word >>> 15)) >>> 0
  }
  return {
    next: () => nextWord() / 2 ** 32,
    bytes: (length) => Uint8Array.from({ length }, () => nextWord() >>> 24),
  }
}
