import { expect, test } from 'vitest'
import { createLog } from './log.ts'
import { recordingLog } from './testing/recording-log.ts'

function collectingLog(level: 'debug' | 'info' = 'info') {
  const lines: string[] = []
  const log = createLog({ service: 'sample', level, destination: { write: (line) => void lines.push(line) } })
  return { log, lines: () => lines.map((line) => JSON.parse(line)), raw: () => lines.join('') }
}

test('a line is one JSON object with the phrase, the facts, the service and a readable time', () => {
  const { log, lines } = collectingLog()
  log.child({ edge_id: 'e-1' }).info('edge lease renewed', { session_count: 3 })
  expect(lines()).toEqual([
    expect.objectContaining({ level: 'info', service: 'sample', msg: 'edge lease renewed', edge_id: 'e-1', session_count: 3 }),
  ])
  expect(lines()[0].time).toMatch(/^\d{4}-\d\d-\d\dT/)
})

test('lines below the level are not written', () => {
  const { log, lines } = collectingLog()
  log.debug('detail')
  expect(lines()).toEqual([])
})

test('a cause is written with message, stack, code and its own causes', () => {
  const { log, lines } = collectingLog()
  const inner = Object.assign(new Error('connect refused'), { code: 'ECONNREFUSED' })
  log.error('call failed', { cause: new AggregateError([inner], 'all hosts', { cause: inner }) })
  const [line] = lines()
  expect(line.cause).toMatchObject({
    message: 'all hosts',
    cause: { message: 'connect refused', code: 'ECONNREFUSED' },
    errors: [{ message: 'connect refused', code: 'ECONNREFUSED' }],
  })
  expect(line.cause.stack).toContain('log.test.ts')
})

test('secrets and bytes are never written, however deep they lie', () => {
  const { log, raw } = collectingLog()
  log.info('device connected', {
    token: 'abc-secret',
    headers: { authorization: 'Bearer abc-secret', list: [{ client_secret: 'abc-secret' }] },
    payload: 'abc-secret',
    frame: Buffer.from('abc-secret'),
    map: new Map([['password', 'abc-secret']]),
    big: 10n,
  })
  expect(raw()).not.toContain('abc-secret')
  expect(raw()).not.toContain(Buffer.from('abc-secret').toString('base64'))
  expect(JSON.parse(raw())).toMatchObject({ token: '[secret]', frame: '[10 bytes]', big: '10' })
})

test('odd facts do not break the line: cycles, names of the line itself', () => {
  const { log, lines } = collectingLog()
  const cycle: Record<string, unknown> = {}
  cycle.self = cycle
  log.info('odd', { cycle, level: 'fatal', time: 'never' })
  expect(lines()).toEqual([expect.objectContaining({ level: 'info', fact_level: 'fatal', fact_time: 'never' })])
})

test('on a terminal a line is text, with the stack of a cause below it', () => {
  const lines: string[] = []
  const destination = { write: (line: string) => void lines.push(line) }
  const log = createLog({ service: 'sample', pretty: true, destination })
  log.info('edge ready', { edge_id: 'e-1' })
  log.error('call failed', { cause: new Error('refused') })
  const written = lines.join('')
  expect(written).toMatch(/INFO: edge ready \{"edge_id":"e-1"\}\n/)
  expect(written).toMatch(/\n +at .*log\.test\.ts/)
})

test('a recording log keeps lines of children with their facts', () => {
  const log = recordingLog()
  log.child({ device_id: 'd' }).warn('slow', { waited_ms: 5 })
  expect(log.withPhrase('slow')).toEqual([{ level: 'warn', phrase: 'slow', facts: { device_id: 'd', waited_ms: 5 } }])
})
