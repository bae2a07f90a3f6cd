import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../../service-kit/clock.ts'
import { silentLog } from '../../../service-kit/log.ts'
import { createMetrics } from '../../../service-kit/metrics.ts'
import { metricValue } from '../../../service-kit/testing/metric-value.ts'
import { recordingLog } from '../../../service-kit/testing/recording-log.ts'
import { messageQueueSuite } from '../message-queue.suite.ts'
import { bytesOf, RecordTaker, textOf } from '../testing/record-taker.ts'
import { type EmbeddedQueueBounds, embeddedQueueOn, openEmbeddedQueue, partitionOf } from './embedded-queue.ts'
import { openQueueFile, partitionCount, QueueFileError } from './queue-file.ts'

const openOn = (path: string, bounds: Partial<EmbeddedQueueBounds> = {}, metrics = createMetrics()) =>
  openEmbeddedQueue({ path, bounds, log: silentLog, metrics, clock: systemClock })

messageQueueSuite('embedded queue', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'pushplane-queue-'))
  const path = join(folder, 'queue.db')
  let metrics = createMetrics()
  return {
    open: async (bounds) => {
      metrics = createMetrics()
      return openOn(path, bounds, metrics)
    },
    commitCount: async (lane) => (await metricValue(metrics, 'push_router_queue_commits_total', { lane })) ?? 0,
    deadLetters: async () => {
      const queue = openOn(path)
      const letters = queue.deadLetters().map((letter) => ({ key: letter.key, text: textOf(letter) }))
      await queue.close()
      return letters
    },
    close: () => rm(folder, { recursive: true, force: true }),
  }
})

describe('queue file', () => {
  let folder: string
  let path: string

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'pushplane-queue-'))
    path = join(folder, 'queue.db')
  })

  afterEach(() => rm(folder, { recursive: true, force: true }))

  const inOtherProcess = (body: string) => {
    const module = (file: string) => JSON.stringify(pathToFileURL(join(import.meta.dirname, file)).href)
    const script = `
      import { openEmbeddedQueue } from ${module('embedded-queue.ts')}
      import { systemClock } from ${module('../../../service-kit/clock.ts')}
      import { silentLog } from ${module('../../../service-kit/log.ts')}
      import { createMetrics } from ${module('../../../service-kit/metrics.ts')}
      const open = () => openEmbeddedQueue({ path: ${JSON.stringify(path)}, log: silentLog, metrics: createMetrics(), clock: systemClock })
      ${body}`
    return spawnSync(process.execPath, ['--input-type=module-typescript', '-e', script], { encoding: 'utf8' })
  }

  test('closing is nothing to warn of', async () => {
    const log = recordingLog()
    const queue = openEmbeddedQueue({ path, log, metrics: createMetrics(), clock: systemClock })
    await queue.close()
    expect(log.entries.map(({ level, phrase }) => `${level} ${phrase}`)).toEqual([
      'info queue is ready',
      'info queue is not ready',
    ])
  })

  test('what publish has answered outlives a process that is killed', async () => {
    const { signal, stderr } = inOtherProcess(`
      const queue = open()
      await queue.publish({ lane: 'high', key: 'tv', value: Buffer.from('before the end') })
      process.kill(process.pid, 'SIGKILL')`)
    expect({ signal, stderr: stderr.replace(/.*ExperimentalWarning.*\n.*\n/, '') }).toEqual({ signal: 'SIGKILL', stderr: '' })
    const queue = openOn(path)
    const taker = new RecordTaker()
    await queue.consume(taker)
    await taker.count(1)
    expect(taker.texts).toEqual(['before the end'])
    await queue.close()
  })

  test('a second process on the same file gets an error that names file and setting', async () => {
    const queue = openOn(path)
    const { stdout } = inOtherProcess(`
      try { open(); console.log('opened') } catch (error) { console.log(error.name, error.message) }`)
    expect(stdout).toContain(`QueueFileError the queue file ${path} is in use by another process`)
    expect(stdout).toContain('ROUTER_QUEUE_PATH')
    await queue.close()
    expect(inOtherProcess(`await open().close(); console.log('opened')`).stdout).toContain('opened')
  })

  test('a second queue on the file in the same process is refused too, and the first one goes on', async () => {
    const queue = openOn(path)
    expect(() => openOn(path)).toThrow(QueueFileError)
    await queue.publish({ lane: 'low', key: 'tv', value: bytesOf('a') })
    await queue.close()
  })

  test('something else than a queue file is refused by name', () => {
    execFileSync('cp', [process.execPath, path])
    expect(() => openOn(path)).toThrow(/queue file .* cannot be opened/)
    expect(() => openOn(join(folder, 'no', 'such', 'folder.db'))).toThrow(QueueFileError)
  })

  test('committed records leave the file, and their space is used again', async () => {
    const file = openQueueFile(path)
    const queue = embeddedQueueOn(file, { path, log: silentLog, metrics: createMetrics(), clock: systemClock })
    const taker = new RecordTaker()
    taker.onBatch = (lease, records) => lease.commitBelow((records.at(-1)?.offset ?? 0n) + 1n)
    await queue.consume(taker)
    const round = async () => {
      const value = new Uint8Array(2_000)
      const keys = Array.from({ length: 500 }, (_, index) => `device-${index}`)
      const before = taker.records.length
      await Promise.all(keys.map((key) => queue.publish({ lane: 'normal', key, value })))
      await taker.count(before + 500)
      await expect.poll(() => file.recordCount()).toBe(0)
    }
    await round()
    await round()
    const sizeBefore = (await stat(path)).size
    for (let index = 0; index < 6; index++) await round()
    await queue.close()
    // Six times as much again has gone through.
    expect((await stat(path)).size).toBeLessThan(sizeBefore + 2_500_000)
  })

  test('a file with too many records that nobody has finished refuses more with BACKLOG_FULL', async () => {
    const first = openOn(path, { storedRecordsMax: 3 })
    const put = (text: string, queue = first) => queue.publish({ lane: 'normal', key: 'tv', value: bytesOf(text) })
    for (const text of ['a', 'b', 'c']) await put(text)
    await expect(put('d')).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
    await first.close()
    const second = openOn(path, { storedRecordsMax: 3 })
    await expect(put('d', second)).rejects.toMatchObject({ reason: 'BACKLOG_FULL' })
    const taker = new RecordTaker()
    await second.consume(taker)
    await taker.count(3)
    taker.leaseWith('a').commitBelow(taker.offsetOf('a') + 1n)
    await second.stopConsuming(async () => {})
    await put('d', second)
    await second.close()
  })

  test('only so many dead letters are kept, the newest', async () => {
    const queue = openOn(path, { deadLettersMax: 2 })
    for (const text of ['a', 'b', 'c', 'd']) await queue.publishDeadLetter('tv', bytesOf(text))
    expect(queue.deadLetters().map((letter) => textOf(letter))).toEqual(['c', 'd'])
    await queue.close()
  })

  test('only so many audit records are kept, the newest', async () => {
    const queue = openOn(path, { auditRecordsMax: 2 })
    for (const text of ['a', 'b', 'c', 'd']) await queue.publishAudit('edge/e1', bytesOf(text))
    expect(queue.auditRecords().map((record) => textOf(record))).toEqual(['c', 'd'])
    await queue.close()
  })

  test('a file that cannot be written makes the queue unavailable until it can be again; commits are repeated', async () => {
    const file = openQueueFile(path)
    let diskFull = false
    const metrics = createMetrics()
    const queue = embeddedQueueOn(
      {
        ...file,
        write: (changes) => {
          if (diskFull) throw new Error('database or disk is full')
          return file.write(changes)
        },
      },
      { path, metrics, log: silentLog, clock: systemClock },
    )
    const states: string[] = []
    queue.onStateChange((state) => states.push(state))
    const taker = new RecordTaker()
    await queue.consume(taker)
    const put = (text: string) => queue.publish({ lane: 'normal', key: 'tv', value: bytesOf(text) })
    await put('a')
    await taker.count(1)
    diskFull = true
    await expect(put('b')).rejects.toMatchObject({ reason: 'QUEUE_UNAVAILABLE' })
    expect(states).toEqual(['unavailable'])
    taker.leaseWith('a').commitBelow(taker.offsetOf('a') + 1n)
    await expect
      .poll(() => metricValue(metrics, 'push_router_queue_commit_failures_total', { lane: 'normal' }))
      .toBeGreaterThan(0)
    diskFull = false
    await expect.poll(() => states).toEqual(['unavailable', 'ready'])
    expect(file.committed('normal', partitionOf('tv'))).toBe(1n)
    await put('c')
    await taker.count(2)
    expect(taker.texts).toEqual(['a', 'c'])
    await queue.close()
  })

  test('keys spread over all partitions, each always to the same', () => {
    const counts = Array<number>(partitionCount).fill(0)
    for (let index = 0; index < 4_000; index++) {
      const partition = partitionOf(`device-${index}`)
      counts[partition] = (counts[partition] ?? 0) + 1
    }
    for (const count of counts) expect(count).toBeGreaterThan(800)
    // Part of the file's format: a change would break the order of keys over an upgrade.
    expect(['tv-1', 'tv-2', 'tv-3', 'tv-4', 'tv-5'].map(partitionOf)).toMatchInlineSnapshot(`
      [
        1,
        0,
        3,
        2,
        1,
      ]
    `)
  })
})
