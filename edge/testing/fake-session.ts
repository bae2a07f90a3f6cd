import type { InboxReadyAnswer } from '../../gen/push/internal/v1/edge.ts'
import type { SessionKey, SessionRow } from '../../gen/push/internal/v1/registry.ts'
import type { LateAnswer } from '../../gen/push/internal/v1/uplink.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { devIdentity } from '../auth/dev.ts'
import { AwaitedResults } from '../awaited-results.ts'
import { type CloseKind, closeKinds } from '../close-codes.ts'
import { DeviceSession } from '../device-session.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import type { AnswerSink, OutcomeFacts } from '../entry.ts'
import { FinalAnswers } from '../final-answers.ts'
import type { Flusher } from '../flush-calls.ts'
import { jsonCodec } from '../json-codec.ts'
import { createLiveness } from '../liveness.ts'
import type { SessionHost, SessionOptions, SessionSettings, Transport } from '../session-host.ts'
import { SessionTable } from '../session-table.ts'
import { createTimerWheel } from '../timer-wheel.ts'

/** A transport that remembers. */
export class FakeTransport implements Transport {
  readonly codec = jsonCodec
  writable = true
  readonly frames: Record<string, unknown>[] = []
  pings = 0
  closedWith: CloseKind | undefined
  write(frame: Buffer): void {
    this.frames.push(JSON.parse(frame.toString()))
  }
  ping(): void {
    this.pings++
  }
  close(kind: CloseKind): void {
    this.closedWith ??= kind
  }
  ofType(type: string): Record<string, unknown>[] {
    return this.frames.filter((frame) => frame.type === type)
  }
}

/** A router's stream that remembers. */
export class FakeSink implements AnswerSink {
  ended = false
  readonly outcomes: (OutcomeFacts & { deliveryId: number })[] = []
  readonly pokes: InboxReadyAnswer[] = []
  poke(answer: InboxReadyAnswer): void {
    this.pokes.push(answer)
  }
  outcome(deliveryId: number, facts: OutcomeFacts): void {
    this.outcomes.push({ deliveryId, ...facts })
  }
  kinds(deliveryId: number) {
    return this.outcomes.filter((outcome) => outcome.deliveryId === deliveryId).map(({ kind }) => kind)
  }
}

export const testSettings: SessionSettings = {
  registerTimeoutMs: 5_000,
  pingIntervalMs: 60_000,
  pongTimeoutMs: 10_000,
  lifetimeMs: 1_800_000,
  lifetimeJitterMs: 900_000,
  slotMaxMs: 30_000,
  longestSlotMs: 30_000,
  slotGraceMs: 30_000,
  finishMs: 5_000,
  stuckMs: 60_000,
  sweepMs: 1_000,
  outboxAgeMs: 600_000,
  deliveryRate: undefined,
  outbox: { bytes: 512 * 1024, count: 256 },
  messageFrameLimitBytes: 128 * 1024,
  clientFrameLimitBytes: 64 * 1024,
  pendingMax: 64,
  invalidFramesMax: 3,
  credentialRefreshMinMs: 10_000,
  unreadRepliesMax: 5,
  takeoversMax: 5,
  deviceFrames: { ratePerSecond: 1e6, burst: 1e6 },
}

/** Sessions without sockets and registry, on a clock that stands still. */
export function fakeEdge(settings: Partial<SessionSettings> = {}, parts: Partial<Pick<SessionHost, 'identity'>> = {}) {
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const edgeMetrics = createEdgeMetrics(metrics)
  const unregistered: SessionKey[] = []
  const replaced: SessionRow[] = []
  const duplicates: { sessionId: string; takeovers: number }[] = []
  const flushers: Flusher[] = []
  const lateAnswers: LateAnswer[] = []
  const failures: unknown[] = []
  const sessions = new SessionTable()
  const host: SessionHost = {
    clock,
    random: seededRandom(3),
    settings: { ...testSettings, ...settings },
    metrics: edgeMetrics,
    wheel: createTimerWheel({ clock, tickMs: 100 }),
    liveness: createLiveness(clock, edgeMetrics),
    sessions,
    identity: 'identity' in parts ? parts.identity : devIdentity(),
    finalAnswers: new FinalAnswers(clock),
    awaitedResults: new AwaitedResults(edgeMetrics),
    outboxBudget: { usedBytes: 0, limitBytes: 1e9 },
    unregister: (key) => unregistered.push(key),
    tellReplaced: (rows) => replaced.push(...rows),
    reportDuplicate: ({ sessionId }, takeovers) => duplicates.push({ sessionId, takeovers }),
    flush: (flusher) => flushers.push(flusher),
    reportLate: (answer) => lateAnswers.push(answer),
    failed(session, cause) {
      failures.push(cause)
      session.handle({ type: 'end', kind: closeKinds.internalError })
    },
    ended: (session) => sessions.remove(session),
  }
  let epoch = 100
  const install = (options: Partial<SessionOptions> = {}) => {
    const transport = new FakeTransport()
    const session = new DeviceSession(host, transport, {
      deviceId: 'tv-1',
      sessionId: `session-${sessions.size}-${epoch}`,
      accountId: '',
      acknowledges: true,
      credentialEndsAt: Number.POSITIVE_INFINITY,
      credentialEndsAtMax: Number.POSITIVE_INFINITY,
      ...options,
    })
    sessions.add(session)
    session.start()
    return { session, transport }
  }
  return {
    clock,
    metrics,
    host,
    unregistered,
    replaced,
    /** Sessions whose identity two devices seem to use. */
    duplicates,
    /** Sessions that asked to flush, in the order of asking. */
    flushers,
    lateAnswers,
    failures,
    /** A session that is registering. */
    install,
    /** A session that is open. */
    open(options: Partial<SessionOptions> = {}) {
      const installed = install(options)
      installed.session.handle({ type: 'registered', epoch: ++epoch, attempts: 1, replaced: [] })
      return installed
    },
  }
}
