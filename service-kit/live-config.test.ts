import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { ConfigError, defineConfig, milliseconds, setting, settingsTable, text, wholeNumber } from './config.ts'
import { openLiveConfig } from './live-config.ts'
import { createMetrics } from './metrics.ts'
import { parseSettings, settingsFileLimitBytes, settingsFileSetting } from './settings-file.ts'
import { metricValue } from './testing/metric-value.ts'
import { recordingLog } from './testing/recording-log.ts'

const range = { min: 1, max: 1000 }
const definition = defineConfig(
  'sample',
  {
    settingsFile: settingsFileSetting('SAMPLE_'),
    limit: setting('SAMPLE_LIMIT', wholeNumber(range), { default: 10, reloadable: true, doc: 'May change.' }),
    most: setting('SAMPLE_MOST', wholeNumber(range), { default: 100, doc: 'Stays.' }),
    waitMs: setting('SAMPLE_WAIT_MS', milliseconds(range), { default: 5, reloadable: true, doc: 'May change.' }),
    key: setting('SAMPLE_KEY', text(), { optional: true, secret: true, reloadable: true, doc: 'Never shown.' }),
  },
  { check: ({ limit, most }) => (limit > most ? [`SAMPLE_LIMIT is ${limit}, above SAMPLE_MOST with ${most}`] : []) },
)

let folder = ''
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pushplane-settings-'))
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

/** A service whose settings file says `content`. */
function opened(content: string, env: Record<string, string> = {}) {
  const file = join(folder, 'settings')
  const write = (lines: string) => writeFileSync(file, lines)
  write(content)
  const log = recordingLog()
  const metrics = createMetrics()
  const live = openLiveConfig(definition, () => ({ SAMPLE_SETTINGS_FILE: file, ...env }), { log, metrics })
  const told: number[] = []
  live.onChange(({ limit }) => told.push(limit))
  const reloads = (result: string) => metricValue(metrics, 'push_sample_settings_reloads_total', { result })
  return { live, log, told, write, file, reloads }
}

const problemsOf = (run: () => unknown): readonly string[] => {
  try {
    run()
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

test('the file goes before the environment, which goes before the default', () => {
  const { live } = opened('# limits\n\nSAMPLE_LIMIT = 20\nSAMPLE_WAIT_MS=\n', {
    SAMPLE_LIMIT: '30',
    SAMPLE_WAIT_MS: '9',
    SAMPLE_MOST: '50',
  })
  // An empty value means the default, whatever the environment says.
  expect(live.current).toMatchObject({ limit: 20, most: 50, waitMs: 5 })
})

test('a reload takes what may change, says what has changed, and shows no secret', async () => {
  const { live, log, told, write, reloads } = opened('SAMPLE_LIMIT=20\nSAMPLE_KEY=old-secret')
  write('SAMPLE_LIMIT=21\nSAMPLE_MOST=99\nSAMPLE_KEY=new-secret')
  live.reload()
  expect(live.current).toMatchObject({ limit: 21, most: 100, key: 'new-secret' })
  expect(told).toEqual([21])
  const hidden = '(set, not shown)'
  expect(log.withPhrase('settings reloaded')).toMatchObject([
    { facts: { changed: { SAMPLE_LIMIT: { from: '20', to: '21' }, SAMPLE_KEY: { from: hidden, to: hidden } } } },
  ])
  expect(log.withPhrase('some changed settings take effect at the next start only')).toMatchObject([
    { level: 'warn', facts: { settings: ['SAMPLE_MOST'] } },
  ])
  expect(JSON.stringify(log.entries)).not.toMatch(/(old|new)-secret/)
  live.reload()
  expect(told).toEqual([21])
  expect([await reloads('changed'), await reloads('unchanged')]).toEqual([1, 1])
})

test('a reload with any problem changes nothing, and tells every problem', async () => {
  const { live, log, told, write, file, reloads } = opened('SAMPLE_LIMIT=20')
  write('SAMPLE_LIMIT=30\nSAMPLE_WAIT_MS=soon\nSAMPLE_LIMITS=3\nnonsense\n')
  live.reload()
  expect(live.current.limit).toBe(20)
  expect(told).toEqual([])
  expect(log.withPhrase('settings were not reloaded; those in force stay')).toMatchObject([
    {
      level: 'error',
      facts: {
        problems: [
          `${file}: line 4 is not NAME=value`,
          'SAMPLE_WAIT_MS is "soon"; expected whole milliseconds from 1 to 1000',
          'SAMPLE_LIMITS is not a setting of sample; did you mean SAMPLE_LIMIT?',
        ],
      },
    },
  ])
  expect(await reloads('refused')).toBe(1)
  rmSync(file)
  live.reload()
  expect(live.current.limit).toBe(20)
  expect(await reloads('refused')).toBe(2)
})

test('a setting that may change must go together with one that keeps its old value until the next start', () => {
  const { live, log, write } = opened('')
  write('SAMPLE_LIMIT=150\nSAMPLE_MOST=200')
  live.reload()
  expect(live.current).toMatchObject({ limit: 10, most: 100 })
  expect(log.withPhrase('settings were not reloaded; those in force stay')).toMatchObject([
    { facts: { problems: ['SAMPLE_LIMIT is 150, above SAMPLE_MOST with 100'] } },
  ])
})

describe('a service does not start', () => {
  test.each([
    ['with a line that is none', 'SAMPLE_LIMIT 5', /line 1 is not NAME=value/],
    ['with a name of another service', 'OTHER_LIMIT=5', /line 1 sets OTHER_LIMIT; expected names that begin with SAMPLE_/],
    ['with a name set twice', 'SAMPLE_LIMIT=5\nSAMPLE_LIMIT=6', /line 2 sets SAMPLE_LIMIT a second time/],
    ['with a file that names a file', 'SAMPLE_SETTINGS_FILE=/x', /line 1 sets SAMPLE_SETTINGS_FILE, which only the environment/],
    ['with a file that is none of settings', `#${'x'.repeat(settingsFileLimitBytes)}`, /holds more than 262144 bytes/],
  ])('%s', (_what, content, problem) => {
    expect(problemsOf(() => opened(content))).toEqual([expect.stringMatching(problem)])
  })

  test('with a file that cannot be read, or is a folder', () => {
    const open = (file: string) => () =>
      openLiveConfig(definition, () => ({ SAMPLE_SETTINGS_FILE: file }), { log: recordingLog(), metrics: createMetrics() })
    expect(problemsOf(open(join(folder, 'none')))).toEqual([expect.stringMatching(/cannot be read \(ENOENT\)/)])
    expect(problemsOf(open(folder))).toEqual([expect.stringMatching(/is not a file/)])
  })
})

test('values may stand in quotes, hold = and #, and lines may end as on Windows', () => {
  const content = '\uFEFFA_X="two words "\r\nA_Y=\'a=b#c\'\r\n  A_Z = a"b\r\n'
  expect(parseSettings(content, 'A_')).toEqual({ values: { A_X: 'two words ', A_Y: 'a=b#c', A_Z: 'a"b' }, problems: [] })
})

test('the docs say which settings may change', () => {
  const rows = settingsTable(definition).split('\n')
  expect(rows.find((row) => row.includes('SAMPLE_LIMIT'))).toContain('May change. _Reloadable._')
  expect(rows.find((row) => row.includes('SAMPLE_MOST'))).not.toContain('Reloadable')
})

describe('whatever stands in a settings file', () => {
  const name = fc.constantFrom(
    'SAMPLE_LIMIT',
    'SAMPLE_MOST',
    'SAMPLE_WAIT_MS',
    'SAMPLE_KEY',
    'SAMPLE_NONE',
    'OTHER_LIMIT',
    '__proto__',
  )
  const value = fc.oneof(
    fc.integer({ min: -5, max: 1_500 }).map(String),
    fc.constantFrom('', '"7"', "'", '"', '1e3', '0x10', '7 # seven', '\0', '=', 'NaN'),
    fc.string({ maxLength: 30 }),
  )
  const line = fc.oneof(
    fc.tuple(name, fc.constantFrom('=', ' = ', ' '), value).map((parts) => parts.join('')),
    fc.constantFrom('', '#', '# SAMPLE_LIMIT=3', '\uFEFF', '=', 'export SAMPLE_LIMIT=3'),
    fc.string({ maxLength: 60, unit: 'binary' }),
  )
  const content = fc
    .tuple(fc.array(line, { maxLength: 12 }), fc.constantFrom('\n', '\r\n', '\r'))
    .map(([lines, end]) => lines.join(end))

  test('a reload takes it whole or changes nothing, says what is wrong, and never throws', () => {
    const { live, log, write } = opened('')
    fc.assert(
      fc.property(content, (text) => {
        const before = live.current
        const errorsBefore = log.withPhrase('settings were not reloaded; those in force stay').length
        write(text)
        live.reload()
        const errors = log.withPhrase('settings were not reloaded; those in force stay')
        if (errors.length > errorsBefore) {
          expect(live.current).toBe(before)
          expect(errors.at(-1)?.facts.problems).not.toEqual([])
        }
        const { limit, most, waitMs } = live.current
        expect([limit, waitMs].every((number) => Number.isInteger(number) && number >= 1 && number <= 1_000)).toBe(true)
        expect(most).toBe(100)
        expect(limit).toBeLessThanOrEqual(most)
        expect(Object.isFrozen(live.current)).toBe(true)
      }),
      { seed: 20_260_103, numRuns: 1_500 },
    )
  })

  test('each line is read, left out as a comment, or told as a problem', () => {
    fc.assert(
      fc.property(content, (text) => {
        const { values, problems } = parseSettings(text, 'SAMPLE_')
        const lines = text
          .replace(/^\uFEFF/, '')
          .split('\n')
          .map((each) => each.trim())
          .filter((each) => each !== '' && !each.startsWith('#'))
        expect(Object.keys(values).length + problems.length).toBe(lines.length)
        for (const known of Object.keys(values)) expect(known.startsWith('SAMPLE_')).toBe(true)
      }),
      { seed: 20_260_104, numRuns: 1_500 },
    )
  })
})
