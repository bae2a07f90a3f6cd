import { InvalidArgumentError } from 'commander'

const msByUnit = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** Reads `500ms`, `10s`, `5m`, `1h`, `30d` and plain `0` as milliseconds; fractions such as `1.5h` too. */
export function parseDurationMs(text: string): number {
  if (text === '0') return 0
  const match = /^(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)$/.exec(text)
  const unit = match?.[2]
  if (match?.[1] === undefined || !isUnit(unit)) {
    throw new InvalidArgumentError('Expected a number with a unit, such as 500ms, 10s, 5m, 1h or 30d; or 0.')
  }
  return Math.round(Number(match[1]) * msByUnit[unit])
}

const timeoutMaxMs = 24 * 3_600_000

/** Reads how long a command may wait, in ms. */
export function parseTimeoutMs(text: string): number {
  const ms = parseDurationMs(text)
  if (ms < 1 || ms > timeoutMaxMs) throw new InvalidArgumentError('Expected more than 0 and at most 24h.')
  return ms
}

function isUnit(text: string | undefined): text is keyof typeof msByUnit {
  return text !== undefined && Object.hasOwn(msByUnit, text)
}
