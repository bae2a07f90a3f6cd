import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { lastLines, startGuarded } from './guarded-process.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'guarded-test-'))
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

function start(script: string) {
  return startGuarded({ command: process.execPath, args: ['-e', script], folder, logFile: join(folder, 'log') })
}

/** Whether there is such a process, one that is dead and not yet collected included. */
function exists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

const stayAlive = 'setInterval(() => undefined, 1000)'

test('what the process writes is in its log, and its end is reported', async () => {
  const guarded = await start('console.log("to stdout"); console.error("to stderr"); process.exitCode = 7')
  expect(await guarded.ended).toEqual({ code: 7, signal: null })
  expect(guarded.running).toBe(false)
  expect(lastLines(join(folder, 'log'), 10).split('\n').sort()).toEqual(['to stderr', 'to stdout'])
})

test('kill ends it, and a later signal hits nobody', async () => {
  const guarded = await start(stayAlive)
  expect(guarded.running).toBe(true)
  expect(await guarded.kill()).toEqual({ code: null, signal: 'SIGKILL' })
  expect(exists(guarded.pid)).toBe(false)
  guarded.signal('SIGTERM')
  expect(await guarded.stop(1)).toEqual({ code: null, signal: 'SIGKILL' })
})

test('stop asks first, also when the process is paused', async () => {
  const guarded = await start(`${stayAlive}; process.on('SIGTERM', () => process.exit(3)); console.log('listening')`)
  await vi.waitFor(() => expect(lastLines(join(folder, 'log'), 1)).toBe('listening'), { timeout: 10_000 })
  guarded.signal('SIGSTOP')
  expect(await guarded.stop(10_000)).toEqual({ code: 3, signal: null })
})

test('stop kills what does not heed it', async () => {
  const guarded = await start(`${stayAlive}; process.on('SIGTERM', () => undefined); console.log('listening')`)
  await vi.waitFor(() => expect(lastLines(join(folder, 'log'), 1)).toBe('listening'), { timeout: 10_000 })
  expect(await guarded.stop(50)).toEqual({ code: null, signal: 'SIGKILL' })
})

test('a command that does not exist is an error with its name', async () => {
  const starting = startGuarded({ command: 'no-such-command', args: [], folder, logFile: join(folder, 'log') })
  await expect(starting).rejects.toThrow('no-such-command cannot be started')
})

test('a killed guardian takes its process along', async () => {
  const guarded = await start(`console.log(process.ppid); ${stayAlive}`)
  await vi.waitFor(() => expect(Number(lastLines(join(folder, 'log'), 1))).toBeGreaterThan(1), { timeout: 10_000 })
  process.kill(Number(lastLines(join(folder, 'log'), 1)), 'SIGKILL')
  expect(await guarded.ended).toEqual({ code: null, signal: 'SIGKILL' })
  await vi.waitFor(() => expect(exists(guarded.pid)).toBe(false), { timeout: 10_000 })
})

test.each(['SIGKILL', 'SIGTERM', 'SIGINT'] as const)(
  'a parent that dies by %s takes its process and the folder along',
  async (signal) => {
    const own = join(folder, 'own')
    await mkdir(own)
    const order = {
      command: process.execPath,
      args: ['-e', stayAlive],
      folder: own,
      logFile: join(own, 'log'),
      removeWhenOrphaned: own,
    }
    const script = `import(${JSON.stringify(new URL('./guarded-process.ts', import.meta.url).href)}).then(async ({ startGuarded }) => {
    const { pid, signal } = await startGuarded(${JSON.stringify(order)})
    signal('SIGSTOP')
    console.log(pid)
  })`
    const parent = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = await once(parent.stdout.setEncoding('utf8'), 'data')
    const pid = Number(line)
    expect(exists(pid)).toBe(true)
    parent.kill(signal)
    await vi.waitFor(() => expect(exists(pid)).toBe(false), { timeout: 10_000 })
    await vi.waitFor(() => expect(access(own)).rejects.toThrow(), { timeout: 10_000 })
  },
)
