import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { connectDevice } from '../device-sdk/index.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const starter = join(root, 'standalone', 'start.js')
const testTimeoutMs = 180_000
/** Far more than anything takes here, also on a machine that does ten things at a time. */
const patience = { timeout: 60_000 }

/** A plane in one process, and what it has written so far. */
interface StartedPlane {
  readonly child: ChildProcess
  readonly text: { out: string; err: string }
  /** Its exit code; null when a signal ended it. */
  readonly ended: Promise<number | null>
  /** Resolves with the block that it prints when it is up. */
  block(): Promise<string>
  stop(): Promise<number | null>
}

let folder: string
const started: StartedPlane[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'standalone-test-'))
})

afterEach(async () => {
  await Promise.all(
    started.splice(0).map(({ child, ended }) => {
      child.kill('SIGKILL')
      return ended
    }),
  )
  await rm(folder, { recursive: true, force: true })
})

/** Starts the plane in one process as `npm start` does, on ports of its own. */
function start(settings: Record<string, string> = {}): StartedPlane {
  const env = {
    PATH: process.env.PATH,
    STANDALONE_DATA_FOLDER: join(folder, 'data'),
    STANDALONE_ROUTER_ADDRESS: '127.0.0.1:0',
    STANDALONE_REGISTRY_ADDRESS: '127.0.0.1:0',
    STANDALONE_EDGE_ADDRESS: '127.0.0.1:0',
    STANDALONE_DEVICE_ADDRESS: '127.0.0.1:0',
    ...settings,
  }
  const child = spawn(process.execPath, [starter], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const text = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text.out += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text.err += chunk
  })
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  const one: StartedPlane = {
    child,
    text,
    ended,
    async block(): Promise<string> {
      await vi.waitFor(() => {
        if (child.exitCode !== null) throw new Error(`it ended with ${child.exitCode}: ${text.err}`)
        expect(text.out).toContain('push-cli listen')
      }, patience)
      return text.out
    },
    async stop(): Promise<number | null> {
      child.kill('SIGTERM')
      return ended
    },
  }
  started.push(one)
  return one
}

/** Runs a printed line as a person would: in a shell, in the folder of the clone. */
async function type(line: string) {
  const env = { ...process.env, PATH: [join(root, 'node_modules', '.bin'), process.env.PATH].join(delimiter) }
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolve) => {
    // npx would find the very same file, a second later.
    execFile('/bin/sh', ['-c', line.replace(/^npx /, '')], { cwd: root, env }, (error, stdout, stderr) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr })
    })
  })
}

/** Runs the printed line of a device, until it is killed. */
function listen(line: string) {
  const words = line.split(' ').slice(2)
  const child = spawn(process.execPath, [join(root, 'publisher-cli', 'push-cli.js'), ...words], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const text = { heard: '', talk: '' }
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    text.heard += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    text.talk += chunk
  })
  const ended = new Promise<void>((resolve) => child.on('close', () => resolve()))
  return {
    text,
    kill(): Promise<void> {
      child.kill('SIGKILL')
      return ended
    },
  }
}

/** The id of the message in what `send` says. */
function idIn(words: string): string {
  return /message ([0-9a-f-]{36})/.exec(words)?.[1] ?? ''
}

/** The first printed command that begins so. */
function printed(block: string, beginning: string): string {
  const line = block.split('\n').find((text) => text.trim().startsWith(beginning))
  if (line === undefined) throw new Error(`nothing printed begins with "${beginning}":\n${block}`)
  return line.trim()
}

function deviceUrl(block: string): string {
  return /ws:\/\/\S+\/v1\/connect/.exec(block)?.[0] ?? ''
}

test('the printed line sends a message to the demo device; a mistyped id is told as offline, and its message as stored', {
  timeout: testTimeoutMs,
}, async () => {
  const plane = start()
  const block = await plane.block()
  const line = printed(block, 'npx push-cli send')
  const sent = await type(line)
  expect(sent).toEqual({ code: 0, stdout: expect.stringMatching(/^acknowledged by demo in \d+(\.\d+)? ms/), stderr: '' })
  await vi.waitFor(() => expect(plane.text.out).toContain('demo received USER {"hello":"world"}'), patience)

  const mistyped = await type(line.replace('--device demo', '--device demmo'))
  expect(mistyped).toMatchObject({ code: 4, stdout: expect.stringMatching(/^offline: stored/), stderr: '' })

  expect(block).toContain(join(folder, 'data'))
  expect(block).toMatch(/stop +Ctrl-C/)
  expect(block).toMatch(/reset +/)
  expect(plane.text.err).toBe('')
})

test('the printed line for a device of your own listens, and gets what is sent to it', { timeout: testTimeoutMs }, async () => {
  const plane = start()
  const block = await plane.block()
  const listener = listen(printed(block, 'npx push-cli listen'))
  try {
    await vi.waitFor(() => expect(listener.text.talk).toContain('connected as my-tv'), patience)
    const line = printed(block, 'npx push-cli send').replace('--device demo', '--device my-tv')
    expect(await type(line)).toMatchObject({ code: 0, stdout: expect.stringContaining('acknowledged by my-tv') })
    await vi.waitFor(() => expect(listener.text.heard).toBe('USER {"hello":"world"}\n'), patience)
    // Through the queue as well.
    const queued = await type(line.replace(' --direct', ''))
    expect(queued).toMatchObject({ code: 0, stdout: expect.stringContaining('acknowledged by my-tv') })
    await vi.waitFor(() => expect(listener.text.heard).toBe('USER {"hello":"world"}\n'.repeat(2)), patience)
    const router = /--address \S+/.exec(line)?.[0] ?? ''
    const disconnected = await type(`npx push-cli devices disconnect my-tv --reason lost ${router}`)
    expect(disconnected).toEqual({ code: 0, stdout: 'disconnected my-tv: 1 session closed\n', stderr: '' })
    await vi.waitFor(() => expect(listener.text.talk).toContain('disconnected by an operator: lost'), patience)
    expect(await type(`npx push-cli devices disconnect my-tv ${router}`)).toMatchObject({ code: 4 })
  } finally {
    await listener.kill()
  }
})

test('a message for a device that is away is stored, told as such, and delivered when it connects', {
  timeout: testTimeoutMs,
}, async () => {
  const plane = start()
  const block = await plane.block()
  const direct = printed(block, 'npx push-cli send').replace('--device demo', '--device my-tv')
  const queued = direct.replace(' --direct', '').replace('world', 'queue')
  const ids: string[] = []
  for (const line of [direct, queued]) {
    const sent = await type(line)
    expect(sent).toEqual({ code: 4, stdout: expect.stringMatching(/^offline: stored \(message \S+\)\n$/), stderr: '' })
    ids.push(idIn(sent.stdout))
  }
  const router = /--address \S+/.exec(direct)?.[0] ?? ''
  const status = (id = '') => type(`npx push-cli status ${id} ${router}`)
  for (const id of ids) expect(await status(id)).toMatchObject({ code: 4, stdout: expect.stringContaining('offline: stored') })

  const listener = listen(printed(block, 'npx push-cli listen'))
  try {
    await vi.waitFor(() => expect(listener.text.heard).toBe('USER {"hello":"world"}\nUSER {"hello":"queue"}\n'), patience)
    for (const id of ids) {
      await vi.waitFor(
        async () => expect(await status(id)).toMatchObject({ code: 0, stdout: expect.stringContaining('acknowledged by my-tv') }),
        patience,
      )
    }
    // Line by line: when it was stored, and when the device had it.
    expect((await status(ids[0])).stdout).toMatch(/accepted.*stored.*written to the device.*answered by the device/s)
  } finally {
    await listener.kill()
  }
  expect(plane.text.err).toBe('')
})

test.each(['SIGTERM', 'SIGINT'] as const)(
  '%s ends it within seconds with exit code 0, also while a device stays that has nowhere else to go',
  { timeout: testTimeoutMs },
  async (signal) => {
    const plane = start()
    const device = connectDevice({ url: deviceUrl(await plane.block()), token: 'dev:my-tv', onMessage: () => undefined })
    try {
      await vi.waitFor(() => expect(device.state).toBe('open'), patience)
      const before = performance.now()
      plane.child.kill(signal)
      expect(await plane.ended).toBe(0)
      // A plane of several machines gives its devices minutes.
      expect(performance.now() - before).toBeLessThan(30_000)
      expect(plane.text.err).toBe('')
    } finally {
      await device.close({ graceMs: 0 })
    }
  },
)

test('a second start on the same data is refused, and names the process that has it', { timeout: testTimeoutMs }, async () => {
  const first = start()
  await first.block()
  const second = start()
  expect(await second.ended).toBe(1)
  expect(second.text.err).toContain(`is in use by process ${first.child.pid}; stop that one, or set STANDALONE_DATA_FOLDER`)
  expect(second.text.out).toBe('')
  // The first one has not noticed.
  expect(await type(printed(first.text.out, 'npx push-cli send'))).toMatchObject({ code: 0 })
})

test.each(['ROUTER', 'REGISTRY', 'EDGE', 'DEVICE'])(
  'a port of the %s that is taken is refused, and names the setting',
  { timeout: testTimeoutMs },
  async (part) => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    try {
      const address = taken.address()
      if (address === null || typeof address === 'string') throw new Error('no port')
      const plane = start({ [`STANDALONE_${part}_ADDRESS`]: `127.0.0.1:${address.port}` })
      expect(await plane.ended).toBe(1)
      expect(plane.text.err).toContain(`127.0.0.1:${address.port} is taken by another process`)
      expect(plane.text.err).toContain(`STANDALONE_${part}_ADDRESS`)
    } finally {
      taken.close()
    }
  },
)

test.each([
  ['STANDALONE_ROUTER_ADDRESS', '0.0.0.0:0', 'expected a loopback address'],
  ['STANDALONE_DATA_FOLDR', '/nowhere', 'STANDALONE_DATA_FOLDR'],
])('a setting that cannot be is refused by name: %s', { timeout: testTimeoutMs }, async (name, value, words) => {
  const plane = start({ [name]: value })
  expect(await plane.ended).toBe(2)
  expect(plane.text.err).toContain(name)
  expect(plane.text.err).toContain(words)
})

test('what is queued when the process is killed is delivered after the restart', { timeout: testTimeoutMs }, async () => {
  const first = start()
  const block = await first.block()
  const url = deviceUrl(block)
  // A device that takes a message and never answers: the queue must keep it.
  const got: string[] = []
  const silent = connectDevice({
    url,
    token: 'dev:my-tv',
    onMessage: (message) => {
      got.push(message.id)
      return new Promise<void>(() => undefined)
    },
  })
  const line = printed(block, 'npx push-cli send')
    .replace('--device demo', '--device my-tv')
    .replace(' --direct', ' --json --wait accepted')
  await vi.waitFor(() => expect(silent.state).toBe('open'), patience)
  const sent = await type(line)
  expect(sent.code).toBe(0)
  const id: unknown = JSON.parse(sent.stdout).message_id
  await vi.waitFor(() => expect(got).toEqual([id]), patience)
  first.child.kill('SIGKILL')
  await first.ended
  await silent.close({ graceMs: 0 })

  const devicePort = Number(new URL(url).port)
  const again: string[] = []
  const device = connectDevice({
    url,
    token: 'dev:my-tv',
    backoff: { baseMs: 50, capMs: 200 },
    onMessage: (message) => {
      again.push(message.id)
    },
  })
  try {
    const second = start({ STANDALONE_DEVICE_ADDRESS: `127.0.0.1:${devicePort}` })
    await second.block()
    await vi.waitFor(() => expect(again).toEqual([id]), patience)
    expect(await second.stop()).toBe(0)
  } finally {
    await device.close({ graceMs: 0 })
  }
})

test('what is stored when the process is killed is there after the restart, and goes to its device', {
  timeout: testTimeoutMs,
}, async () => {
  const first = start()
  const block = await first.block()
  const sent = await type(printed(block, 'npx push-cli send').replace('--device demo', '--device my-tv'))
  expect(sent.code).toBe(4)
  const id = idIn(sent.stdout)
  first.child.kill('SIGKILL')
  await first.ended

  const second = start()
  const blockAgain = await second.block()
  const router = /--address \S+/.exec(blockAgain)?.[0] ?? ''
  const status = () => type(`npx push-cli status ${id} ${router}`)
  expect(await status()).toMatchObject({ code: 4, stdout: expect.stringContaining('offline: stored') })
  const listener = listen(printed(blockAgain, 'npx push-cli listen'))
  try {
    await vi.waitFor(() => expect(listener.text.heard).toBe('USER {"hello":"world"}\n'), patience)
    await vi.waitFor(async () => expect((await status()).code).toBe(0), patience)
  } finally {
    await listener.kill()
  }
})
