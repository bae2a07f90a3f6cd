import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, onTestFinished, test } from 'vitest'
import { createMetrics } from './metrics.ts'
import type { Reloads } from './reloads.ts'
import { StartError } from './start-error.ts'
import { metricValue } from './testing/metric-value.ts'
import { recordingLog } from './testing/recording-log.ts'
import { SteeredClock } from './testing/steered-clock.ts'
import { watchFiles } from './watched-files.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'watched-files-'))
  return () => rmSync(folder, { recursive: true })
})

const pathOf = (name: string) => join(folder, name)

function watched({ reloads }: { reloads?: Reloads } = {}) {
  const clock = new SteeredClock()
  const log = recordingLog()
  const metrics = createMetrics()
  const changes: string[] = []
  const files = watchFiles({
    name: 'pair',
    files: [
      { setting: 'SAMPLE_LEFT_FILE', path: pathOf('left') },
      { setting: 'SAMPLE_RIGHT_FILE', path: pathOf('right') },
    ],
    parse([left, right]) {
      if (String(left) !== String(right)) throw new StartError(`${left} does not go with ${right}`)
      return String(left)
    },
    onChange: (value) => changes.push(value),
    periodMs: 1_000,
    clock,
    log,
    metrics,
    reloads,
  })
  onTestFinished(() => files.close())
  const count = async (result: string) => (await metricValue(metrics, 'push_file_reloads_total', { file: 'pair', result })) ?? 0
  return { files, clock, log, changes, count }
}

const write = (left: string, right: string) => {
  writeFileSync(pathOf('left'), left)
  writeFileSync(pathOf('right'), right)
}

test('a change is taken at the next look, once', async () => {
  write('a', 'a')
  const { files, clock, changes, count } = watched()
  expect(files.value).toBe('a')
  write('b', 'b')
  await clock.advance(1_000)
  await files.look()
  await clock.advance(5_000)
  await files.look()
  expect(changes).toEqual(['b'])
  expect(files.value).toBe('b')
  expect(await count('taken')).toBe(1)
})

test('what does not hold is told once and counted; what was right stays in force until both files go together', async () => {
  write('a', 'a')
  const { files, log, changes, count } = watched()
  write('b', 'a')
  for (let looks = 0; looks < 3; looks++) await files.look()
  expect(files.value).toBe('a')
  expect(await count('refused')).toBe(1)
  expect(log.entries.filter(({ level }) => level === 'error')).toMatchObject([
    { phrase: 'changed files are not used; what was read before stays in force', facts: { problem: 'b does not go with a' } },
  ])
  write('b', 'b')
  await files.look()
  expect(changes).toEqual(['b'])
})

test('a file that has gone changes nothing; put back as it was, it is no change', async () => {
  write('a', 'a')
  const { files, changes, count } = watched()
  rmSync(pathOf('left'))
  await files.look()
  expect([files.value, await count('refused')]).toEqual(['a', 1])
  write('a', 'a')
  await files.look()
  expect([files.value, changes, await count('taken')]).toEqual(['a', [], 0])
  // The next trouble is told again.
  rmSync(pathOf('left'))
  await files.look()
  expect(await count('refused')).toBe(2)
})

test('a reload looks at once, and a closed watch no more', async () => {
  write('a', 'a')
  const listeners = new Set<() => void>()
  const reloads: Reloads = {
    onReload(run) {
      listeners.add(run)
      return () => listeners.delete(run)
    },
  }
  const { files, clock, changes } = watched({ reloads })
  write('b', 'b')
  for (const run of listeners) run()
  await files.look()
  expect(changes).toEqual(['b'])
  files.close()
  expect(listeners.size).toBe(0)
  expect(clock.pendingTimers).toBe(0)
})

test('what cannot be read at the start is told by setting and path', () => {
  write('a', 'a')
  rmSync(pathOf('right'))
  expect(() => watched()).toThrow(new StartError(`SAMPLE_RIGHT_FILE names ${pathOf('right')}, which cannot be read (ENOENT)`))
  write('a', 'c')
  expect(() => watched()).toThrow('a does not go with c')
})
