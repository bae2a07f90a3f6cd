import { DeadLetter, type QueuedMessage, QueuedMessage as queuedMessages } from '../../gen/push/internal/v1/queue.ts'
import {
  type DeadLetterReplay,
  DeadLetterReplayState,
  type DeadLetterSummary,
  type OperationsServiceImplementation,
} from '../../gen/push/v1/operations.ts'
import { remainingCallMs } from '../../service-kit/call-deadline.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { type FieldViolation, PushError } from '../../service-kit/errors.ts'
import { createLimiter } from '../../service-kit/limiter.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import { microsFromTimestamp, timestampFromMicros } from '../../service-kit/time.ts'
import { createTokenBucket } from '../../service-kit/token-bucket.ts'
import { type ReadableRecord, readQueuedRecord } from '../dispatch/queued-record.ts'
import { reasonName } from '../dispatch/state-names.ts'
import type { DeadLetterPosition, MessageQueue, StoredDeadLetter } from '../queue/message-queue.ts'
import type { Permissions } from './permissions.ts'
import { laneOf } from './publish-service.ts'

/** What the calls need. */
export interface DeadLettersOptions {
  readonly queue: Pick<MessageQueue, 'listDeadLetters' | 'readDeadLetters' | 'purgeDeadLettersBefore' | 'publish'>
  /** A message is put back if its publisher may still publish it. */
  readonly permissions: Pick<Permissions, 'publishProblem'>
  /** Messages that all replays together may put back in a second. */
  readonly replayRatePerSecond: number
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
}

/** The part of the operations service that is about dead letters. */
export type DeadLetterCalls = Pick<
  OperationsServiceImplementation,
  'listDeadLetters' | 'getDeadLetter' | 'replayDeadLetters' | 'purgeDeadLetters'
>

const pageSizeDefault = 100
const pageSizeMax = 1_000
const replayCountMax = 1_000
/** Calls that wait while one reads: each reading is a consumer of its own. */
const waitingMax = 4
/** The longest that one replay goes on, in ms, whatever its caller's deadline. */
const replayMaxMs = 60_000
/** So long before the call's end, in ms, the replay stops, so that the answer still gets through. */
const replayMarginMs = 1_000
const namedMax = 20

/** A dead letter whose message can be put back. */
interface Replayable {
  readonly position: string
  readonly record: ReadableRecord
}

/** Lists, shows, replays and purges dead letters. */
export function createDeadLetterCalls(options: DeadLettersOptions): DeadLetterCalls {
  const { queue, permissions, replayRatePerSecond, clock, log, metrics } = options
  const reading = createLimiter({ name: 'dead letters', concurrentMax: 1, queuedMax: waitingMax, metrics })
  const replaying = createLimiter({ name: 'dead letter replays', concurrentMax: 1, queuedMax: 0, metrics })
  // Without a burst: what comes back must not come all at once.
  const pace = createTokenBucket({ ratePerSecond: replayRatePerSecond, burst: 1, clock })
  const replays = metrics.counter(
    'push_router_dead_letter_replays_total',
    'Dead letters named in replays, by what became of them',
    ['result'],
  )
  const purged = metrics.counter('push_router_dead_letters_purged_total', 'Dead letters removed by operators')

  async function readAll(texts: readonly string[], signal: AbortSignal): Promise<Map<string, StoredDeadLetter>> {
    const positions = texts.map(positionOf)
    const letters = await reading.run(() => queue.readDeadLetters(positions), { signal })
    return new Map(letters.map((letter) => [textOf(letter), letter]))
  }

  /** Waits for the next message's turn. Returns why it must not go, or undefined when it may. */
  async function turn(endsAt: number, signal: AbortSignal): Promise<string | undefined> {
    for (;;) {
      if (signal.aborted) return 'its caller had gone before its turn'
      const waitMs = pace.waitMs()
      if (clock.monotonic() + waitMs > endsAt) return 'the call ended before its turn'
      if (pace.take()) return undefined
      await clock.sleep(waitMs, signal).catch(() => undefined)
    }
  }

  /** Why the message may not go back, whoever asks for it: what its publisher may do may have changed. */
  function forbidden({ queued, content, target }: ReadableRecord): string | undefined {
    const problem = permissions.publishProblem(queued.principal, { message: content, target, lifeMs: 0 })
    return problem && `its publisher may not publish it any more: ${problem}`
  }

  async function putBack({ queued, content, target }: ReadableRecord): Promise<PushError | undefined> {
    const again: QueuedMessage = { ...queued, attempt: queued.attempt + 1 }
    try {
      await queue.publish({ lane: laneOf(content.priority), key: target.value, value: queuedMessages.encode(again).finish() })
      return undefined
    } catch (error) {
      if (error instanceof PushError) return error
      throw error
    }
  }

  async function replayAll(found: readonly Replayable[], endsAt: number, signal: AbortSignal): Promise<DeadLetterReplay[]> {
    const results: DeadLetterReplay[] = []
    let stopped: string | undefined
    for (const { position, record } of found) {
      const { messageId, expireTime } = record.queued
      const say = (state: DeadLetterReplayState, detail = '') => results.push({ position, messageId, state, detail })
      const problem = forbidden(record)
      if (problem !== undefined) {
        say(DeadLetterReplayState.FAILED, problem)
        continue
      }
      // Waiting first: it may expire meanwhile.
      if (!isExpired(expireTime, clock)) stopped ??= await turn(endsAt, signal)
      if (isExpired(expireTime, clock)) say(DeadLetterReplayState.EXPIRED, expiredWords(expireTime))
      else if (stopped !== undefined) say(DeadLetterReplayState.NOT_TRIED, stopped)
      else {
        const refusal = await putBack(record)
        if (!refusal) say(DeadLetterReplayState.REPLAYED)
        else say(DeadLetterReplayState.FAILED, refusal.message)
        // One that is too large for the queue does not stop the others.
        if (refusal && refusal.reason !== 'PAYLOAD_TOO_LARGE') stopped = 'the queue failed before its turn'
      }
    }
    return results
  }

  return {
    async listDeadLetters({ pageSize, pageToken }, { signal }) {
      if (pageSize < 0 || pageSize > pageSizeMax)
        throw invalid([{ field: 'page_size', description: `must be from 1 to ${pageSizeMax}; unset means ${pageSizeDefault}` }])
      const after = pageToken === '' ? undefined : parsePosition(pageToken)
      if (pageToken !== '' && !after) throw invalid([{ field: 'page_token', description: 'is not one that a page has given' }])
      const limit = pageSize || pageSizeDefault
      const { letters, more } = await reading.run(() => queue.listDeadLetters({ after, limit }), { signal })
      const last = letters.at(-1)
      return { deadLetters: letters.map((letter) => summaryOf(letter)), nextPageToken: more && last ? textOf(last) : '' }
    },

    async getDeadLetter({ position }, { signal }) {
      const letter = (await readAll([position], signal)).get(position)
      if (!letter) throw unknown(position)
      const { value } = decode(letter)
      const record = readQueuedRecord(value)
      const queued = typeof record === 'string' ? undefined : record.queued
      return {
        summary: summaryOf(letter),
        value,
        message: queued?.message,
        acceptTime: queued && timestampFromMicros(queued.acceptTime),
        expireTime: queued && timestampFromMicros(queued.expireTime),
        principal: queued?.principal ?? '',
        attempt: queued?.attempt ?? 0,
      }
    },

    async replayDeadLetters({ positions, dryRun }, context) {
      checkPositions(positions)
      const limitMs = Math.min(remainingCallMs(context, clock.now()) ?? replayMaxMs, replayMaxMs)
      const endsAt = clock.monotonic() + limitMs - Math.min(replayMarginMs, limitMs / 4)
      return replaying.run(async () => {
        const letters = await readAll(positions, context.signal)
        const found = positions.map((position) => replayable(position, letters.get(position)))
        const unreadable = found.flatMap((one) => ('problem' in one ? [one] : []))
        if (unreadable.length > 0) throw notReplayable(unreadable)
        const readable = found.flatMap((one) => ('record' in one ? [one] : []))
        const results = dryRun
          ? readable.map((one) => dryRunOf(one, clock, forbidden(one.record)))
          : await replayAll(readable, endsAt, context.signal)
        const replayedCount = results.filter(
          ({ state }) => state === DeadLetterReplayState.REPLAYED || state === DeadLetterReplayState.WOULD_REPLAY,
        ).length
        for (const { state } of results) replays.inc({ result: stateNames[state] })
        log.info('dead letters replayed', { position_count: positions.length, replayed_count: replayedCount, dry_run: dryRun })
        return { replayedCount, replays: results }
      })
    },

    async purgeDeadLetters({ before }, { signal }) {
      const beforeMs = before && millisecondsOf(before)
      if (beforeMs === undefined) throw invalid([{ field: 'before', description: 'is required, and must be a time since 1970' }])
      if (beforeMs > clock.now()) throw invalid([{ field: 'before', description: 'must be a time that has come' }])
      const purgedCount = await reading.run(() => queue.purgeDeadLettersBefore(beforeMs), { signal })
      purged.inc(purgedCount)
      log.info('dead letters purged', { purged_count: purgedCount, before_ms: beforeMs })
      return { purgedCount }
    },
  }
}

const stateNames = {
  [DeadLetterReplayState.UNSPECIFIED]: 'unspecified',
  [DeadLetterReplayState.REPLAYED]: 'replayed',
  [DeadLetterReplayState.WOULD_REPLAY]: 'would_replay',
  [DeadLetterReplayState.EXPIRED]: 'expired',
  [DeadLetterReplayState.FAILED]: 'failed',
  [DeadLetterReplayState.NOT_TRIED]: 'not_tried',
} as const satisfies Record<DeadLetterReplayState, string>

/** `partition:offset`, as `DeadLetterSummary.position` writes it. */
function textOf({ partition, offset }: DeadLetterPosition): string {
  return `${partition}:${offset}`
}

function parsePosition(text: string): DeadLetterPosition | undefined {
  const match = /^(0|[1-9]\d{0,5}):(0|[1-9]\d{0,17})$/.exec(text)
  return match ? { partition: Number(match[1]), offset: BigInt(match[2] ?? '0') } : undefined
}

function positionOf(text: string): DeadLetterPosition {
  const position = parsePosition(text)
  if (!position)
    throw invalid([{ field: 'position', description: `is "${text.slice(0, 40)}"; expected partition:offset, such as 0:17` }])
  return position
}

function checkPositions(positions: readonly string[]): void {
  const wrong = (description: string) => invalid([{ field: 'positions', description }])
  if (positions.length < 1 || positions.length > replayCountMax) throw wrong(`must be 1 to ${replayCountMax}`)
  const seen = new Set<string>()
  for (const position of positions) {
    positionOf(position)
    if (seen.has(position)) throw wrong(`has ${position} twice`)
    seen.add(position)
  }
}

function millisecondsOf(time: { seconds: number; nanos: number }): number | undefined {
  try {
    const ms = microsFromTimestamp(time) / 1_000
    return ms >= 0 ? ms : undefined
  } catch {
    return undefined
  }
}

/** What lies there, as dispatch has written it; where that cannot be read, the record as it is with the reason. */
function decode(letter: StoredDeadLetter): DeadLetter {
  const unreadable = (detail: string) => DeadLetter.fromPartial({ detail, value: Buffer.from(letter.value) })
  if (letter.problem !== undefined) return unreadable(`this record cannot be read from the dead-letter topic: ${letter.problem}`)
  try {
    return DeadLetter.decode(letter.value)
  } catch {
    return unreadable('this record of the dead-letter topic is no dead letter')
  }
}

function summaryOf(letter: StoredDeadLetter): DeadLetterSummary {
  const { originTopic, originPartition, originOffset, reason, detail, time, messageId } = decode(letter)
  return {
    position: textOf(letter),
    origin: originTopic === '' ? '' : `${originTopic.slice(0, 249)}:${originPartition}:${originOffset}`,
    error: detail.slice(0, 1_024) || reasonName(reason),
    time: timestampFromMicros(time > 0 ? time : Math.max(0, Math.trunc(letter.timestampMs)) * 1_000),
    messageId: messageId.slice(0, 128),
    reason,
    key: letter.key.slice(0, 128),
  }
}

function replayable(position: string, letter: StoredDeadLetter | undefined): Replayable | { position: string; problem: string } {
  if (!letter) throw unknown(position)
  const record = readQueuedRecord(decode(letter).value)
  return typeof record === 'string' ? { position, problem: record } : { position, record }
}

function dryRunOf({ position, record }: Replayable, clock: Clock, problem: string | undefined): DeadLetterReplay {
  const { messageId, expireTime } = record.queued
  if (problem !== undefined) return { position, messageId, state: DeadLetterReplayState.FAILED, detail: problem }
  return isExpired(expireTime, clock)
    ? { position, messageId, state: DeadLetterReplayState.EXPIRED, detail: expiredWords(expireTime) }
    : { position, messageId, state: DeadLetterReplayState.WOULD_REPLAY, detail: '' }
}

function isExpired(expireTime: number, clock: Clock): boolean {
  return expireTime <= clock.nowMicros()
}

function expiredWords(expireTime: number): string {
  // biome-ignore lint/style/noRestrictedGlobals: formats a time that was given, and asks for none
  return `it expired at ${new Date(expireTime / 1_000).toISOString()}`
}

function notReplayable(unreadable: readonly { position: string; problem: string }[]): PushError {
  const [first] = unreadable
  const others = unreadable.length > 1 ? `, nor can ${unreadable.length - 1} more` : ''
  return new PushError(
    'INVALID_REQUEST',
    `the dead letter at ${first?.position} cannot be replayed: ${first?.problem}${others}; nothing was replayed`,
    { position: first?.position ?? '' },
    {
      violations: unreadable.slice(0, namedMax).map(({ position, problem }) => ({
        field: 'positions',
        description: `has ${position}, which cannot be replayed: ${problem}`,
      })),
    },
  )
}

function unknown(position: string): PushError {
  return new PushError('DEAD_LETTER_UNKNOWN', `there is no dead letter at ${position}; it may have been purged`, { position })
}

function invalid(violations: readonly FieldViolation[]): PushError {
  const text = violations.map(({ field, description }) => `${field} ${description}`).join('; ')
  return new PushError('INVALID_REQUEST', text, {}, { violations })
}
