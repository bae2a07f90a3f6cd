import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test, vi } from 'vitest'
import { probeNode } from './cassandra.ts'
import { probeBroker } from './kafka.ts'
import { portAnswers } from './ports.ts'
import { parseAddresses } from './shared-servers.ts'

const mainFile = fileURLToPath(new URL('./main.ts', import.meta.url))

function run(args: readonly string[], env: NodeJS.ProcessEnv = {}) {
  const child = spawn(process.execPath, [mainFile, ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const output = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  return { child, output }
}

test('servers in the foreground answer at the printed addresses, and are gone when their parent is killed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'main-test-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const { child, output } = run(['up'], { TMPDIR: folder })
  await vi.waitFor(() => expect(output.stdout.split('\n')).toHaveLength(3), { timeout: 120_000, interval: 100 })
  const lines = /^export PUSHPLANE_TEST_KAFKA=(\S+)\nexport PUSHPLANE_TEST_CASSANDRA=(\S+)\n$/.exec(output.stdout)
  const [kafka, cassandra] = [lines?.[1] ?? '', lines?.[2] ?? ''].map((list) => parseAddresses('printed', list)[0])
  if (kafka === undefined || cassandra === undefined) throw new Error(`unexpected output: ${output.stdout}`)
  await probeBroker(`${kafka.host}:${kafka.port}`)
  await probeNode(cassandra.host, cassandra.port)
  expect(output.stderr).toMatch(/Kafka ready on \S+ after [\d.]+ s/)
  expect(await readdir(folder)).toHaveLength(1)

  child.kill('SIGKILL')
  await once(child, 'close')
  await vi.waitFor(
    async () => {
      expect(await portAnswers(kafka.host, kafka.port)).toBe(false)
      expect(await portAnswers(cassandra.host, cassandra.port)).toBe(false)
      expect(await readdir(folder)).toEqual([])
    },
    { timeout: 10_000, interval: 100 },
  )
}, 180_000)

test('without Java it says what is missing and ends', async () => {
  const { child, output } = run(['up'], { PATH: '/nonexistent' })
  const [code] = await once(child, 'close')
  expect(code).toBe(1)
  expect(output.stderr).toContain('java is not on PATH')
  expect(output.stderr).toContain('npm run test:unit')
  expect(output.stdout).toBe('')
})

test('arguments it does not know are a usage error', async () => {
  for (const args of [[], ['down'], ['up', '--kafka', '2'], ['up', '--redis', '1']]) {
    const { child, output } = run(args)
    const [code] = await once(child, 'close')
    expect(code).toBe(2)
    expect(output.stderr).toContain('usage:')
  }
})
