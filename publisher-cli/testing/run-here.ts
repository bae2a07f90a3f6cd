import { type Clock, systemClock } from '../../service-kit/clock.ts'
import type { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import type { ExitCode } from '../exit-codes.ts'
import { runCommand } from '../program.ts'

/** What a command did. */
export interface Ran {
  code: ExitCode
  stdout: string[]
  stderr: string[]
}

/** A command that runs in this process. */
export interface Running {
  /** As Ctrl-C does. */
  interrupt(): void
  /** Resolves when a line on either side holds the text. */
  said(text: string): Promise<void>
  readonly done: Promise<Ran>
}

/** What a command is started with besides its arguments. */
export interface RunOptions {
  readonly env?: Record<string, string>
  readonly stdin?: (string | Uint8Array)[]
  /** Where a command is waited for until its time is over, that time is steered. */
  readonly clock?: Clock
}

/** Starts a command line in this process, with its own environment and standard input. */
export function start(args: string[], options: RunOptions = {}): Running {
  const stdout: string[] = []
  const stderr: string[] = []
  const waiting = new Set<() => void>()
  const note = (lines: string[]) => (line: string) => {
    lines.push(line)
    for (const look of [...waiting]) look()
  }
  const interrupted = new AbortController()
  const done = runCommand(args, {
    env: options.env ?? {},
    output: { data: note(stdout), talk: note(stderr), progress: () => undefined },
    stdin: (async function* () {
      yield* options.stdin ?? []
    })(),
    clock: options.clock ?? systemClock,
    interrupted: interrupted.signal,
  })
  return {
    interrupt: () => interrupted.abort(),
    said: (text) =>
      new Promise((resolve) => {
        const look = () => {
          if (![...stdout, ...stderr].some((line) => line.includes(text))) return
          waiting.delete(look)
          resolve()
        }
        waiting.add(look)
        look()
      }),
    done: done.then((code) => ({ code, stdout, stderr })),
  }
}

export const run = (...parameters: Parameters<typeof start>): Promise<Ran> => start(...parameters).done

/** Lets time pass until the command has ended: what it does over connections in between takes time that nobody steers. */
export async function endOf(done: Promise<Ran>, clock: SteeredClock): Promise<Ran> {
  let ended = false
  void done.then(() => {
    ended = true
  })
  while (!ended) {
    await clock.advance(1_000)
    await systemClock.sleep(5)
  }
  return done
}
