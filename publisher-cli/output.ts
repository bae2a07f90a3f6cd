/** Where a command writes: results to one side, talk to the other, so that results can be piped on. */
export interface Output {
  /** A line of result: stdout. */
  data(line: string): void
  /** A sentence for the person at the terminal: stderr. */
  talk(line: string): void
  /** How far something has got: on a terminal the line takes the place of the one before, until something else is written. Nowhere else. */
  progress(line: string): void
}

interface Side {
  write(text: string): unknown
  readonly isTTY?: boolean
  readonly columns?: number
}

const clearLine = '\r\u001b[2K'

export function createOutput(stdout: Side, stderr: Side): Output {
  let shown = false
  const clear = () => {
    if (shown) stderr.write(clearLine)
    shown = false
  }
  const write = (side: Side) => (line: string) => {
    clear()
    side.write(`${line}\n`)
  }
  return {
    data: write(stdout),
    talk: write(stderr),
    progress(line) {
      if (stderr.isTTY !== true) return
      // A line that wraps could not be cleared.
      stderr.write(`${clearLine}${line.slice(0, (stderr.columns ?? 80) - 1)}`)
      shown = true
    },
  }
}

const barWidth = 30

/** A bar of how much is done, with the share: `[#####     ]  50 %`. */
export function bar(share: number): string {
  const whole = Math.min(1, Math.max(0, share))
  return `[${'#'.repeat(Math.floor(whole * barWidth)).padEnd(barWidth)}] ${String(Math.floor(whole * 100)).padStart(3)} %`
}

/** Text from elsewhere made fit for a terminal: one line, and no control characters that would steer it. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are the ones to take out
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (character) => {
    if (character === '\n') return '\\n'
    if (character === '\t') return '\\t'
    return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
  })
}

/** Rows under their headings, in columns as wide as they must be, two spaces apart. */
export function table(headings: string[], rows: string[][]): string[] {
  const lines = [headings, ...rows]
  const widths = headings.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines.map((line) =>
    line
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  )
}

/** The name of an enum's value, or its number where this version does not know it. */
export function nameOf(names: Readonly<Record<string, number>>, value: number): string {
  return Object.entries(names).find(([, number]) => number === value)?.[0] ?? String(value)
}

/** A time as ISO 8601 in UTC, to the millisecond; undefined stays undefined. */
export function isoTime(time: { seconds: number; nanos: number } | undefined): string | undefined {
  // biome-ignore lint/style/noRestrictedGlobals: formats a time that was given, and asks for none
  return time && new Date(time.seconds * 1_000 + Math.floor(time.nanos / 1_000_000)).toISOString()
}
