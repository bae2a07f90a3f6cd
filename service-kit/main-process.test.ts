import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'

const fixture = fileURLToPath(new URL('./testing/fixtures/process.ts', import.meta.url))

/** Runs the sample service until it exits; each signal is sent when the process has said the phrase before it, after what is to be done first. */
function run(
  behaviour: string,
  env: Record<string, string> = {},
  ...signals: [phrase: string, signal: NodeJS.Signals, first?: () => void][]
) {
  const child = spawn(process.execPath, [fixture, behaviour], { env: { PATH: process.env.PATH, ...env } })
  onTestFinished(() => void child.kill('SIGKILL'))
  let stdout = ''
  let stderr = ''
  let sent = 0
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString()
    for (let next = signals[sent]; next !== undefined && stdout.includes(next[0]); next = signals[++sent]) {
      next[2]?.()
      child.kill(next[1])
    }
  })
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  return new Promise<{ code: number | null; phrases: string[]; stdout: string; stderr: string }>((resolve) => {
    child.on('close', (code) => {
      const phrases = stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => String(JSON.parse(line).msg))
      resolve({ code, phrases, stdout, stderr })
    })
  })
}

test('a wrong setting is told plainly on standard error, exit 2', async () => {
  const { code, stdout, stderr } = await run('', { SAMPLE_LISTEN_ADDRESS: 'nowhere', SAMPLE_LISTN: 'x' })
  expect(code).toBe(2)
  expect(stdout).toBe('')
  expect(stderr).toBe(
    'sample cannot start:\n' +
      '  SAMPLE_LISTEN_ADDRESS is "nowhere"; expected host:port\n' +
      '  SAMPLE_LISTN is not a setting of sample\n',
  )
})

test('SIGTERM closes everything in reverse order, exit 0', async () => {
  const { code, phrases, stderr } = await run('', {}, ['sample ready', 'SIGTERM'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(phrases).toEqual(['sample ready', 'stopping', 'last opened is closed', 'first opened is closed'])
})

test('SIGHUP reloads what can be reloaded, and the process goes on', async () => {
  const { code, phrases, stderr } = await run('reloading', {}, ['sample ready', 'SIGHUP'], ['sample reloads', 'SIGTERM'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(phrases.slice(0, 3)).toEqual(['sample ready', 'sample reloads', 'stopping'])
})

test('SIGHUP ends a process that has nothing to reload', async () => {
  const { code, phrases } = await run('', {}, ['sample ready', 'SIGHUP'])
  expect({ code, phrases }).toEqual({ code: null, phrases: ['sample ready'] })
})

test('a second signal does not wait for what is slow', async () => {
  const { code, phrases } = await run('slow', {}, ['sample ready', 'SIGINT'], ['"stopping"', 'SIGINT'])
  expect(code).toBe(1)
  expect(phrases).toEqual(
    expect.arrayContaining(['stopping at once', 'first opened is closed', 'some parts did not close in time']),
  )
})

test.each([
  ['throw', 'nobody catches this'],
  ['reject', 'nobody awaits this'],
])('an error that nobody caught (%s) is logged, everything is closed, exit 70', async (behaviour, message) => {
  const { code, phrases, stdout } = await run(behaviour)
  expect(code).toBe(70)
  expect(stdout).toContain(message)
  expect(phrases).toEqual(expect.arrayContaining(['stopping after an error that nobody caught', 'first opened is closed']))
})

test('a start that fails closes what was opened, exit 1', async () => {
  const { code, phrases, stdout } = await run('broken start')
  expect(code).toBe(1)
  expect(stdout).toContain('the disk is on fire')
  expect(phrases).toEqual(expect.arrayContaining(['cannot start', 'first opened is closed']))
})

test('a taken port is told plainly with its address, exit 1', async () => {
  const other = createServer()
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => void other.close())
  const bound = other.address()
  const address = `127.0.0.1:${typeof bound === 'object' ? bound?.port : ''}`
  const { code, stderr } = await run('', { SAMPLE_LISTEN_ADDRESS: address })
  expect(code).toBe(1)
  expect(stderr).toBe(`sample cannot start: ${address} is taken by another process; stop that one or choose another port\n`)
})

test('SIGHUP has settings read again: a bad file changes nothing, a good one is taken, and the service goes on', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-process-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'settings')
  writeFileSync(file, 'SAMPLE_MESSAGE_QUOTA=6\n')
  const { code, phrases, stdout } = await run(
    'settings',
    { SAMPLE_SETTINGS_FILE: file },
    ['sample ready', 'SIGHUP', () => writeFileSync(file, 'SAMPLE_MESSAGE_QUOTA=10\n')],
    ['settings were not reloaded', 'SIGHUP', () => writeFileSync(file, 'SAMPLE_MESSAGE_QUOTA=7\n')],
    ['settings reloaded', 'SIGTERM'],
  )
  expect(code).toBe(0)
  expect(phrases).toEqual(
    expect.arrayContaining(['settings were not reloaded; those in force stay', 'settings reloaded', 'stopping']),
  )
  expect(stdout).toContain('"changed":{"SAMPLE_MESSAGE_QUOTA":{"from":"6","to":"7"}}')
})

test('the level of the log may stand in the settings file', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-process-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  const file = join(folder, 'settings')
  writeFileSync(file, 'SAMPLE_LOG_LEVEL=error\n')
  const { code, stdout, stderr } = await run('', { SAMPLE_SETTINGS_FILE: file })
  // The sample does not know the setting: what it says of that goes to standard error, and nothing below `error` was logged.
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toContain('SAMPLE_LOG_LEVEL is not a setting of sample')
})
