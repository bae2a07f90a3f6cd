import { AuditRecord } from '../../gen/push/internal/v1/queue.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import { type Batcher, createBatcher } from '../../service-kit/batcher.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError, toPushError } from '../../service-kit/errors.ts'
import { uuidV7 } from '../../service-kit/ids.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Random } from '../../service-kit/random.ts'
import { fullLevel, type TokenLevel, type TokenRate, takeToken } from '../../service-kit/token-bucket.ts'
import type { MessageQueue } from '../queue/message-queue.ts'
import type { AuditJournal, JournalRecord } from './journal-file.ts'

/** Something that somebody wants done; what is unset is empty in its record. */
export type Act = Pick<AuditRecord, 'principal' | 'action' | 'target'> & Partial<AuditRecord>

/** What the log is made with. */
export interface AuditLogOptions {
  readonly queue: Pick<MessageQueue, 'publishAudit'>
  /** Where records wait while the queue is away. Undefined: what cannot be put on the queue is not done. The log closes it. */
  readonly journal: AuditJournal | undefined
  /** Records in the journal, at most; those of refused acts take half of it, so that nobody who may do nothing fills it. */
  readonly journalRecordsMax: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** Records what must be on record before it is done. */
export interface AuditLog {
  /**
   * Resolves when the record of an allowed act is durable: in the queue, or in the journal while the queue is away, in which it stays until the queue
   * has it. Rejects with AUDIT_UNAVAILABLE when it is in neither; the act must then not be done.
   */
  record(act: Act): Promise<void>
  /**
   * Runs `check` and records the act as allowed, or as refused with what `check` has thrown, which is thrown again. That a refused act cannot be
   * recorded is logged and counted: it is not done anyway. So is what one principal is refused beyond `refusedRate`.
   */
  decide(act: Act, check: () => void | Promise<void>): Promise<void>
  /** Records that wait in the journal. */
  readonly waitingCount: number
  /** Stops uploading and closes the journal: what waits is uploaded by the next process that opens it. */
  close(): Promise<void>
}

/** How long the queue may take before the journal takes the record, in ms: recovery must work while Kafka hangs. */
export const queueWaitMs = 2_000
/** Refused acts of one principal that are recorded: whoever may do nothing must not fill the topic by asking. */
export const refusedRate: TokenRate = { ratePerSecond: 1, burst: 100 }
/** Principals whose refused acts are counted; above it the one that was refused first is forgotten. */
export const refusedPrincipalsMax = 10_000
/** How long one upload may take, in ms, before it is tried again. */
const uploadTimeoutMs = 30_000
const uploadBatchMax = 100
const uploadPause = { baseMs: 500, capMs: 15_000 }
const textMax = 1_024
const detailMax = 16_384

/** Opens the log. What waits in the journal is uploaded from now on. The caller closes it. */
export function createAuditLog(options: AuditLogOptions): AuditLog {
  const { queue, journal, journalRecordsMax, clock, random, log, metrics } = options
  const recorded = metrics.counter('push_router_audit_records_total', 'Audit records that are durable, by where', ['to'])
  const failures = metrics.counter(
    'push_router_audit_failures_total',
    'Acts that could not be recorded, by whether they were allowed; those that were have not been done',
    ['allowed'],
  )
  const leftOut = metrics.counter(
    'push_router_audit_refused_left_out_total',
    'Refused acts that are not on record, because their principal was refused too often',
  )
  const refusedBy = new Map<string, TokenLevel>()
  const waiting = metrics.gauge('push_router_audit_journal_records', 'Audit records that wait in the journal for the queue')
  const uploads = metrics.counter('push_router_audit_uploads_total', 'Batches of the journal put on the queue, by result', [
    'result',
  ])
  const closing = new AbortController()
  let uploading: Promise<void> | undefined

  const appends: Batcher<JournalRecord, undefined> | undefined =
    journal &&
    createBatcher<JournalRecord, undefined>({
      maxBatch: 1_000,
      maxInFlight: 1,
      maxQueued: journalRecordsMax,
      async runBatch(records) {
        journal.append(records)
        waiting.set(journal.count)
        return records.map(() => undefined)
      },
    })

  async function within<T>(work: Promise<T>, timeoutMs: number, ended?: AbortSignal): Promise<T> {
    const timer = new AbortController()
    const tooLate = clock.sleep(timeoutMs, ended ? AbortSignal.any([timer.signal, ended]) : timer.signal).then((): never => {
      throw new Error(`the queue has not taken the record within ${timeoutMs} ms`)
    })
    tooLate.catch(() => undefined)
    work.catch(() => undefined)
    try {
      return await Promise.race([work, tooLate])
    } finally {
      timer.abort()
    }
  }

  function unavailable(allowed: boolean, why: string, cause?: unknown): PushError {
    failures.inc({ allowed: String(allowed) })
    log.error('an act could not be recorded', { allowed, why, cause })
    return new PushError(
      'AUDIT_UNAVAILABLE',
      `this must be recorded before it is done, and cannot be: ${why}; nothing was done`,
      {},
      { retryAfterMs: 5_000, cause },
    )
  }

  async function toJournal(record: JournalRecord, allowed: boolean, cause: unknown): Promise<void> {
    if (!journal || !appends)
      throw unavailable(allowed, 'the queue does not take it, and there is no journal (ROUTER_AUDIT_PATH)', cause)
    const countMax = allowed ? journalRecordsMax : Math.floor(journalRecordsMax / 2)
    if (closing.signal.aborted) throw unavailable(allowed, 'the router shuts down')
    if (journal.count + appends.queued >= countMax)
      throw unavailable(
        allowed,
        `the queue does not take it, and the journal has ${journal.count} records, of at most ${countMax}`,
        cause,
      )
    try {
      await appends.run(record)
    } catch (failed) {
      throw unavailable(allowed, 'the queue does not take it, and the journal cannot be written', failed)
    }
    recorded.inc({ to: 'journal' })
    uploadSoon()
  }

  async function put(record: JournalRecord, allowed: boolean): Promise<void> {
    // What waits already goes first.
    if (journal && journal.count + (appends?.queued ?? 0) > 0) return toJournal(record, allowed, undefined)
    try {
      await within(queue.publishAudit(record.key, record.value), queueWaitMs)
    } catch (cause) {
      return toJournal(record, allowed, cause)
    }
    recorded.inc({ to: 'queue' })
  }

  function uploadSoon(): void {
    if (uploading || closing.signal.aborted) return
    uploading = upload().finally(() => {
      uploading = undefined
      // One may have come after the last look.
      if (journal && journal.count > 0) uploadSoon()
    })
  }

  async function upload(): Promise<void> {
    const backoff = createBackoff({ ...uploadPause, random })
    let told = false
    while (journal && journal.count > 0 && !closing.signal.aborted) {
      try {
        const records = journal.oldest(uploadBatchMax)
        // In the order of the calls; one that failed in the middle comes again with all of its batch.
        const sent = Promise.all(records.map(({ key, value }) => queue.publishAudit(key, value)))
        await within(sent, uploadTimeoutMs, closing.signal)
        const last = records.at(-1)
        if (last && !closing.signal.aborted) journal.removeUpTo(last.id)
        waiting.set(journal.count)
        uploads.inc({ result: 'uploaded' })
        backoff.reset()
        if (journal.count === 0) log.info('the audit journal is uploaded', {})
      } catch (cause) {
        if (closing.signal.aborted) break
        uploads.inc({ result: 'failed' })
        if (told) log.debug('the audit journal cannot be uploaded yet', { record_count: journal.count, cause })
        else log.warn('the audit journal cannot be uploaded yet', { record_count: journal.count, cause })
        told = true
        await clock.sleep(uploadPause.baseMs + backoff.next(), closing.signal).catch(() => undefined)
      }
    }
  }

  async function write(act: Act, allowed: boolean, refusal = ''): Promise<void> {
    const record = AuditRecord.fromPartial({
      ...act,
      target: act.target.slice(0, textMax),
      reason: act.reason?.slice(0, textMax) ?? '',
      detail: act.detail?.slice(0, detailMax) ?? '',
      auditId: uuidV7(clock, random),
      time: clock.nowMicros(),
      allowed,
      refusal,
    })
    await put({ key: record.target, value: AuditRecord.encode(record).finish() }, allowed)
    const { auditId, principal, action, target } = record
    log.info('act recorded', { audit_id: auditId, principal, action, target, allowed, ...(refusal && { refusal }) })
  }

  function mayRecordRefusal(principal: string): boolean {
    const nowMs = clock.monotonic()
    const level = refusedBy.get(principal) ?? fullLevel(refusedRate, nowMs)
    refusedBy.set(principal, level)
    const [first] = refusedBy.keys()
    if (first !== undefined && refusedBy.size > refusedPrincipalsMax) refusedBy.delete(first)
    if (takeToken(level, refusedRate, nowMs)) return true
    leftOut.inc()
    return false
  }

  waiting.set(journal?.count ?? 0)
  if (journal && journal.count > 0) {
    log.info('audit records wait in the journal', { record_count: journal.count })
    uploadSoon()
  }

  return {
    record: (act) => write(act, true),
    async decide(act, check) {
      try {
        await check()
      } catch (refusal) {
        // Its failure is logged and counted where it happens.
        if (mayRecordRefusal(act.principal)) await write(act, false, toPushError(refusal).reason).catch(() => undefined)
        throw refusal
      }
      await write(act, true)
    },
    get waitingCount() {
      return journal?.count ?? 0
    },
    async close() {
      closing.abort()
      await uploading
      journal?.close()
    },
  }
}
