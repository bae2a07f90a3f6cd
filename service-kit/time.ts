import type { Duration } from '../gen/google/protobuf/duration.ts'
import type { Timestamp } from '../gen/google/protobuf/timestamp.ts'

/** Years 1 to 9999, which is what a Timestamp may hold. */
const timestampSecondsMin = -62_135_596_800
const timestampSecondsMax = 253_402_300_799
/** About 10 000 years, which is what a Duration may hold. */
const durationSecondsMax = 315_576_000_000

/** Microseconds since 1970 as a Timestamp. Throws RangeError unless it is a whole, exactly represented number in range. */
export function timestampFromMicros(micros: number): Timestamp {
  if (!Number.isSafeInteger(micros)) throw new RangeError(`${micros} is not a time in whole microseconds`)
  const seconds = Math.floor(micros / 1_000_000)
  return checkedTimestamp({ seconds, nanos: (micros - seconds * 1_000_000) * 1000 })
}

/** A Timestamp as microseconds since 1970; fractions of a microsecond are cut off. Throws RangeError when it is malformed. */
export function microsFromTimestamp(timestamp: Timestamp): number {
  const { seconds, nanos } = checkedTimestamp(timestamp)
  const micros = seconds * 1_000_000 + Math.floor(nanos / 1000)
  if (!Number.isSafeInteger(micros)) throw new RangeError(`a time of ${seconds} s is too far away for microseconds`)
  return micros
}

/** Milliseconds, possibly with fractions, as a Duration; fractions of a nanosecond are cut off. */
export function durationFromMs(ms: number): Duration {
  if (!Number.isFinite(ms)) throw new RangeError(`${ms} is not a duration in milliseconds`)
  const seconds = Math.trunc(ms / 1000)
  // Adding 0 turns the minus zero of small negative values into 0.
  return checkedDuration({ seconds: seconds + 0, nanos: Math.trunc((ms - seconds * 1000) * 1_000_000) + 0 })
}

/** A Duration in whole milliseconds, rounded up, so that a wait is never shorter than asked for. RangeError when malformed. */
export function msFromDuration(duration: Duration): number {
  const { seconds, nanos } = checkedDuration(duration)
  return seconds * 1000 + Math.ceil(nanos / 1_000_000) + 0
}

function checkedTimestamp(timestamp: Timestamp): Timestamp {
  const { seconds, nanos } = timestamp
  const secondsHold = Number.isInteger(seconds) && seconds >= timestampSecondsMin && seconds <= timestampSecondsMax
  if (!secondsHold || !Number.isInteger(nanos) || nanos < 0 || nanos > 999_999_999) {
    throw new RangeError(`a timestamp of ${seconds} s and ${nanos} ns is out of range`)
  }
  return timestamp
}

function checkedDuration(duration: Duration): Duration {
  const { seconds, nanos } = duration
  const secondsHold = Number.isInteger(seconds) && Math.abs(seconds) <= durationSecondsMax
  if (!secondsHold || !Number.isInteger(nanos) || Math.abs(nanos) > 999_999_999 || seconds * nanos < 0) {
    throw new RangeError(`a duration of ${seconds} s and ${nanos} ns is out of range`)
  }
  return duration
}
