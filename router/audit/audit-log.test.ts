import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AuditRecord } from '../../gen/push/internal/v1/queue.ts'
import { PushError } from '../../service-kit/errors.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { seededRandom } from '../../service-kit/random.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { type Act, type AuditLog, createAuditLog, queueWaitMs, refusedRate } from './audit-log.ts'
import { type AuditJournal, openAuditJournal } from './journal-file.ts'

let folder: string
const opened: AuditLog[] = []

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'audit-log-'))
})
afterEach(async () => {
  for (const audit of opened.splice(0)) await audit.close()
  rmSync(folder, { recursive: true, force: true })
})

const act = (name: string, more: Partial<Act> = {}): Act => ({
  principal: 'ops',
  action: 'push.v1.OperationsService/DrainEdge',
  target: 'edge/e1',
  name,
  ...more,
})

/** A log on a queue that is there, away or silent, as the test says. */
function bench(options: { journalRecordsMax?: number; journal?: (journal: AuditJournal) => AuditJournal | undefined } = {}) {
  const { journalRecordsMax = 10, journal: changed = (journal) => journal } = options
  const clock = new SteeredClock()
  const metrics = createMetrics()
  const log = recordingLog()
  const queue = { is: 'there' as 'there' | 'away' | 'silent', taken: [] as AuditRecord[], late: [] as (() => void)[] }
  const open = () => {
    const audit = createAuditLog({
      queue: {
        async publishAudit(_key, value) {
          if (queue.is === 'away') throw new PushError('QUEUE_UNAVAILABLE', 'away')
          if (queue.is === 'silent') await new Promise<void>((resolve) => queue.late.push(resolve))
          queue.taken.push(AuditRecord.decode(value))
        },
      },
      journal: changed(openAuditJournal(join(folder, 'journal'))),
      journalRecordsMax,
      clock,
      random: seededRandom(1),
      log,
      metrics,
    })
    opened.push(audit)
    return audit
  }
  const taken = () => queue.taken.map(({ name }) => name)
  const durable = (to: string) => metricValue(metrics, 'push_router_audit_records_total', { to })
  return { clock, metrics, log, queue, open, taken, durable }
}

const settle = () => new Promise<void>((resolve) => setTimeout(resolve, 5))

describe('while the queue is there', () => {
  test('a record is on it when record returns, with who, what, on whom and when', async () => {
    const { open, queue, clock, durable } = bench()
    await open().record(act('a', { reason: 'full disk', payloadDigest: Buffer.from('digest'), messageId: 'm1' }))
    expect(queue.taken).toEqual([
      {
        principal: 'ops',
        action: 'push.v1.OperationsService/DrainEdge',
        target: 'edge/e1',
        reason: 'full disk',
        payloadDigest: Buffer.from('digest'),
        time: clock.nowMicros(),
        allowed: true,
        auditId: expect.stringMatching(/^[0-9a-f-]{36}$/),
        messageId: 'm1',
        name: 'a',
        refusal: '',
        detail: '',
      },
    ])
    expect(await durable('queue')).toBe(1)
  })

  test('who may do nothing does not fill the topic by asking: beyond a rate refusals are counted only, of that principal alone', async () => {
    const { open, queue, clock, metrics } = bench()
    const audit = open()
    const refuse = (principal: string) =>
      audit
        .decide(act('r', { principal }), () => {
          throw new PushError('PERMISSION_MISSING', 'no')
        })
        .catch((error: unknown) => error)
    for (let count = 0; count < refusedRate.burst + 5; count++) {
      expect(await refuse('mallory')).toMatchObject({ reason: 'PERMISSION_MISSING' })
    }
    expect(queue.taken).toHaveLength(refusedRate.burst)
    expect(await metricValue(metrics, 'push_router_audit_refused_left_out_total')).toBe(5)
    await refuse('anna')
    await audit.decide(act('allowed', { principal: 'mallory' }), () => undefined)
    expect(queue.taken).toHaveLength(refusedRate.burst + 2)
    await clock.advance(1_000 / refusedRate.ratePerSecond)
    await refuse('mallory')
    expect(queue.taken).toHaveLength(refusedRate.burst + 3)
  })

  test('what is refused is recorded as such, and stays refused', async () => {
    const { open, queue } = bench()
    const audit = open()
    const refusal = new PushError('PERMISSION_MISSING', 'no')
    const decided = audit.decide(act('a'), () => {
      throw refusal
    })
    await expect(decided).rejects.toBe(refusal)
    await audit.decide(act('b'), () => undefined)
    expect(queue.taken).toMatchObject([
      { name: 'a', allowed: false, refusal: 'PERMISSION_MISSING' },
      { name: 'b', allowed: true, refusal: '' },
    ])
  })

  test('long words are cut off', async () => {
    const { open, queue } = bench()
    await open().record(act('a', { target: 'x'.repeat(9_999), reason: 'y'.repeat(9_999), detail: 'z'.repeat(99_999) }))
    expect(queue.taken[0]).toMatchObject({
      target: 'x'.repeat(1_024),
      reason: 'y'.repeat(1_024),
      detail: 'z'.repeat(16_384),
    })
  })
})

describe('while the queue is away', () => {
  test('records wait in the journal, and go up in their order when it is back; what comes meanwhile goes behind them', async () => {
    const { open, queue, taken, clock, durable, log } = bench()
    queue.is = 'away'
    const audit = open()
    await audit.record(act('a'))
    await audit.record(act('b'))
    await clock.advance(60_000)
    expect(taken()).toEqual([])
    expect(audit.waitingCount).toBe(2)
    expect(log.withPhrase('the audit journal cannot be uploaded yet').filter(({ level }) => level === 'warn')).toHaveLength(1)
    queue.is = 'there'
    await audit.record(act('c'))
    await clock.advance(16_000)
    await expect.poll(taken, { timeout: 10_000 }).toEqual(['a', 'b', 'c'])
    await expect.poll(() => audit.waitingCount, { timeout: 10_000 }).toBe(0)
    expect(await durable('journal')).toBe(3)
    await audit.record(act('d'))
    expect(taken()).toEqual(['a', 'b', 'c', 'd'])
    expect(await durable('queue')).toBe(1)
  })

  test('a process that starts again uploads what another has left', async () => {
    const { open, queue, taken, clock } = bench()
    queue.is = 'away'
    const first = open()
    await first.record(act('a'))
    await first.record(act('b'))
    await first.close()
    queue.is = 'there'
    const second = open()
    expect(second.waitingCount).toBe(2)
    await clock.advance(0)
    await expect.poll(taken, { timeout: 10_000 }).toEqual(['a', 'b'])
    await expect.poll(() => second.waitingCount, { timeout: 10_000 }).toBe(0)
  })

  test('a crash between upload and removal gives the same records again, by their ids', async () => {
    let removes = false
    const { open, queue, taken, clock } = bench({
      journal: (journal) => ({
        append: (records) => journal.append(records),
        oldest: (countMax) => journal.oldest(countMax),
        removeUpTo(id) {
          if (removes) journal.removeUpTo(id)
          else throw new Error('the process ends here')
        },
        get count() {
          return journal.count
        },
        close: () => journal.close(),
      }),
    })
    queue.is = 'away'
    const first = open()
    await first.record(act('a'))
    queue.is = 'there'
    await clock.advance(1_000)
    await expect.poll(() => taken().length, { timeout: 10_000 }).toBeGreaterThan(0)
    await first.close()
    removes = true
    const second = open()
    await clock.advance(0)
    await expect.poll(() => second.waitingCount, { timeout: 10_000 }).toBe(0)
    expect(new Set(taken())).toEqual(new Set(['a']))
    expect(new Set(queue.taken.map(({ auditId }) => auditId)).size).toBe(1)
    expect(queue.taken.length).toBeGreaterThan(1)
  })

  test('a queue that does not answer holds an act up for two seconds, once; a record that it took after all has the same id', async () => {
    const { open, queue, clock } = bench()
    queue.is = 'silent'
    const audit = open()
    let done = false
    const recorded = audit.record(act('a')).then(() => {
      done = true
    })
    await clock.advance(queueWaitMs - 1)
    await settle()
    expect(done).toBe(false)
    await clock.advance(1)
    await recorded
    // The next one knows, and does not wait.
    await audit.record(act('b'))
    expect(audit.waitingCount).toBe(2)
    queue.is = 'there'
    for (const answer of queue.late.splice(0)) answer()
    await clock.advance(60_000)
    await expect.poll(() => audit.waitingCount, { timeout: 10_000 }).toBe(0)
    const ids = (name: string) => new Set(queue.taken.filter((one) => one.name === name).map(({ auditId }) => auditId)).size
    expect([ids('a'), ids('b')]).toEqual([1, 1])
  })

  test('at the limit of the journal an act is not recorded, and so not done; refused ones cannot use up more than half', async () => {
    const { open, queue, metrics, clock, taken } = bench({ journalRecordsMax: 4 })
    queue.is = 'away'
    const audit = open()
    const refuse = (name: string) =>
      audit.decide(act(name), () => {
        throw new PushError('CLASS_FORBIDDEN', 'no')
      })
    for (const name of ['r1', 'r2', 'r3', 'r4']) await expect(refuse(name)).rejects.toMatchObject({ reason: 'CLASS_FORBIDDEN' })
    expect(audit.waitingCount).toBe(2)
    await audit.record(act('a'))
    await audit.record(act('b'))
    const full = audit.record(act('c'))
    await expect(full).rejects.toMatchObject({ reason: 'AUDIT_UNAVAILABLE', retryAfterMs: 5_000 })
    await expect(full).rejects.toThrow(/the journal has 4 records.*nothing was done/)
    expect(await metricValue(metrics, 'push_router_audit_failures_total', { allowed: 'true' })).toBe(1)
    expect(await metricValue(metrics, 'push_router_audit_failures_total', { allowed: 'false' })).toBe(2)
    expect(await metricValue(metrics, 'push_router_audit_journal_records')).toBe(4)
    queue.is = 'there'
    await clock.advance(16_000)
    await expect.poll(taken, { timeout: 10_000 }).toEqual(['r1', 'r2', 'a', 'b'])
    await expect.poll(() => audit.waitingCount, { timeout: 10_000 }).toBe(0)
    await audit.record(act('d'))
  })

  test('the limit holds also for those that come in one tick', async () => {
    const { open, queue } = bench({ journalRecordsMax: 4 })
    queue.is = 'away'
    const audit = open()
    const ends = await Promise.allSettled(Array.from({ length: 9 }, (_, n) => audit.record(act(`a${n}`))))
    expect(ends.filter(({ status }) => status === 'fulfilled')).toHaveLength(4)
    expect(audit.waitingCount).toBe(4)
  })

  test('without a journal nothing is done', async () => {
    const { open, queue } = bench({ journal: (journal) => void journal.close() })
    queue.is = 'away'
    await expect(open().record(act('a'))).rejects.toThrow(/no journal \(ROUTER_AUDIT_PATH\)/)
  })

  test('a journal that cannot be written means the same', async () => {
    const { open, queue } = bench({
      journal: (journal) => ({
        ...journal,
        count: 0,
        append() {
          throw new Error('disk full')
        },
      }),
    })
    queue.is = 'away'
    const failed = open().record(act('a'))
    await expect(failed).rejects.toMatchObject({ reason: 'AUDIT_UNAVAILABLE' })
    await expect(failed).rejects.not.toThrow(/disk full/)
  })

  test('closing does not wait for a queue that hangs', async () => {
    const { open, queue, clock } = bench()
    queue.is = 'away'
    const audit = open()
    await audit.record(act('a'))
    queue.is = 'silent'
    await clock.advance(16_000)
    expect(queue.late).toHaveLength(1)
    await audit.close()
    expect(clock.pendingTimers).toBe(0)
    expect(audit.waitingCount).toBe(1)
  })

  test('closing keeps what waits, and leaves no timer', async () => {
    const { open, queue, clock } = bench()
    queue.is = 'away'
    const audit = open()
    await audit.record(act('a'))
    await clock.advance(1_000)
    await audit.close()
    expect(clock.pendingTimers).toBe(0)
    await expect(audit.record(act('b'))).rejects.toMatchObject({ reason: 'AUDIT_UNAVAILABLE' })
  })
})
