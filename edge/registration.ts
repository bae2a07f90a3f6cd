import type { RegisterResult, RegistryServiceClient, SessionRow } from '../gen/push/internal/v1/registry.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import { createBatcher } from '../service-kit/batcher.ts'
import type { Clock } from '../service-kit/clock.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { CallBounds } from '../service-kit/grpc-client.ts'
import type { Log } from '../service-kit/log.ts'
import type { Random } from '../service-kit/random.ts'
import { durationFromMs } from '../service-kit/time.ts'
import type { EdgeMetrics } from './edge-metrics.ts'

/** A session that wants its row. */
export interface Candidate {
  readonly deviceId: string
  readonly sessionId: string
  readonly accountId: string
  /** How its frames travel, as the row shall name it. */
  readonly protocol: string
  readonly connectedTime: number
  readonly rowTtlMs: number
  /** When its time for registering is over, on the monotonic clock in ms. */
  readonly registerBy: number
  /** The epoch it was given before, when it registers again. */
  readonly lastEpoch?: number
  /** It has ended. */
  readonly closed: boolean
}

/** How it ended. No call is under way any more; `attempts` counts those that may have left a row. */
export type RegistrationResult =
  | {
      readonly type: 'registered'
      readonly epoch: number
      readonly attempts: number
      readonly replaced: readonly SessionRow[]
      readonly inboxUntil?: number
      /** Changes of sessions of its device of late, this one among them. */
      readonly takeovers?: number
    }
  | { readonly type: 'superseded'; readonly attempts: number }
  | { readonly type: 'registration failed'; readonly attempts: number }

export interface RegistrationOptions {
  readonly registry: Pick<RegistryServiceClient<CallBounds>, 'register'>
  readonly edgeId: string
  /** Where routers reach this edge. */
  readonly edgeAddress: string
  /** Registrations a second that this edge counts on, read at each; the queue holds what that makes of the time a session has. */
  readonly ratePerSecond: number
  /** How long a session has for registering. */
  readonly timeoutMs: number
  /** How long one call has; a repeat may go to another registry. */
  readonly callTimeoutMs: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: EdgeMetrics
}

/** Registers sessions, in batches. */
export interface Registration {
  /** Tries until the session's time is over. Never rejects. */
  register(candidate: Candidate): Promise<RegistrationResult>
  /** Whether one more would be refused at once. */
  readonly full: boolean
}

const batchMax = 100
const callsMax = 8
const retryBaseMs = 50
const retryCapMs = 1_000

export function createRegistration(options: RegistrationOptions): Registration {
  const { clock, random, log, metrics } = options
  const queuedMax = () => Math.max(1, Math.floor((options.ratePerSecond * options.timeoutMs) / 1000))
  let waiting = 0
  let lastFailureAt = Number.NEGATIVE_INFINITY

  const failed = (cause: unknown) => {
    // A registry that is away fails every batch: one line a second says as much.
    if (clock.monotonic() - lastFailureAt < 1_000) return
    lastFailureAt = clock.monotonic()
    log.warn('sessions could not be registered; trying again', { cause: callErrorOf(cause).message })
  }

  const call = async (candidates: Candidate[]): Promise<RegisterResult['result'][]> => {
    const nowMs = clock.monotonic()
    const leftMs = Math.max(...candidates.map(({ registerBy }) => registerBy)) - nowMs
    const { results } = await options.registry.register(
      {
        edgeId: options.edgeId,
        edgeAddress: options.edgeAddress,
        sessions: candidates.map((candidate) => ({
          deviceId: candidate.deviceId,
          sessionId: candidate.sessionId,
          accountId: candidate.accountId,
          protocol: candidate.protocol,
          connectedTime: candidate.connectedTime,
          rowTtl: durationFromMs(candidate.rowTtlMs),
          lastEpoch: candidate.lastEpoch ?? 0,
        })),
      },
      { deadlineMs: Math.max(1, Math.ceil(Math.min(leftMs, options.callTimeoutMs))) },
    )
    return candidates.map((_, index) => results[index]?.result)
  }

  /** `undefined` for those that were not sent, because their socket had gone or their time was over by their turn. */
  const runBatch = async (batch: Candidate[]): Promise<Attempt[]> => {
    const nowMs = clock.monotonic()
    const attempts = new Map<Candidate, Attempt>()
    // A call may name a device once only.
    const calls: Map<string, Candidate>[] = []
    for (const candidate of batch) {
      waiting--
      if (candidate.closed || candidate.registerBy <= nowMs) continue
      const free = calls.find((devices) => !devices.has(candidate.deviceId))
      if (free === undefined) calls.push(new Map([[candidate.deviceId, candidate]]))
      else free.set(candidate.deviceId, candidate)
    }
    metrics.registerQueued.set(waiting)
    await Promise.all(
      calls.map(async (devices) => {
        const candidates = [...devices.values()]
        try {
          const results = await call(candidates)
          candidates.forEach((candidate, index) => {
            attempts.set(candidate, { sent: true, result: results[index] })
          })
        } catch (cause) {
          failed(cause)
          for (const candidate of candidates) attempts.set(candidate, { sent: true, result: undefined })
        }
      }),
    )
    return batch.map((candidate) => attempts.get(candidate) ?? { sent: false, result: undefined })
  }

  const batcher = createBatcher<Candidate, Attempt>({
    runBatch,
    maxBatch: batchMax,
    maxInFlight: callsMax,
    maxQueued: Number.POSITIVE_INFINITY, // bounded below, together with those that wait for their next attempt
  })

  const attemptAll = async (candidate: Candidate): Promise<RegistrationResult> => {
    const backoff = createBackoff({ baseMs: retryBaseMs, capMs: retryCapMs, random })
    let attempts = 0
    for (;;) {
      waiting++
      metrics.registerQueued.set(waiting)
      const { sent, result } = await batcher.run(candidate)
      if (!sent && candidate.closed) metrics.registerDropped.inc()
      if (sent) attempts++
      if (result?.$case === 'registered') {
        const { epoch, replacedSessions, inboxUntil, recentTakeovers: takeovers = 0 } = result.value
        return {
          type: 'registered',
          epoch,
          attempts,
          replaced: replacedSessions,
          ...(inboxUntil > 0 && { inboxUntil }),
          ...(takeovers > 0 && { takeovers }),
        }
      }
      if (result?.$case === 'superseded') return { type: 'superseded', attempts }
      const waitMs = retryBaseMs + backoff.next()
      if (candidate.closed || clock.monotonic() + waitMs >= candidate.registerBy) return { type: 'registration failed', attempts }
      await clock.sleep(waitMs)
      if (candidate.closed) return { type: 'registration failed', attempts }
      metrics.registerRetries.inc()
    }
  }

  let registering = 0
  return {
    get full() {
      return registering >= queuedMax()
    },
    async register(candidate) {
      if (registering >= queuedMax()) return { type: 'registration failed', attempts: 0 }
      registering++
      const startedAt = clock.monotonic()
      try {
        const result = await attemptAll(candidate)
        metrics.registerSeconds.observe({ result: result.type }, (clock.monotonic() - startedAt) / 1000)
        return result
      } finally {
        registering--
      }
    },
  }
}

interface Attempt {
  readonly sent: boolean
  /** Undefined: no answer, or one that says nothing. */
  readonly result: RegisterResult['result']
}
