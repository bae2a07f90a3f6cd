import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { fetchJars } from './fetch.ts'
import { requireTools } from './tools.ts'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tools-test-'))
  vi.stubEnv('PATH', folder)
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true })
})

async function command(name: string, script: string): Promise<void> {
  await writeFile(join(folder, name), `#!/bin/sh\n${script}\n`)
  await chmod(join(folder, name), 0o755)
}

test('without Java and Maven the error names both and what works without them', async () => {
  const failure = requireTools({ maven: true })
  await expect(failure).rejects.toThrow('java is not on PATH')
  await expect(failure).rejects.toThrow('mvn is not on PATH')
  await expect(failure).rejects.toThrow('npm run test:unit')
})

test('starting a server without Java ends in that error before anything is fetched', async () => {
  await expect(fetchJars('kafka', { cache: join(folder, 'cache') })).rejects.toThrow('java is not on PATH')
})

test('a Java that is too old is named with its version', async () => {
  await command('java', `echo 'openjdk version "11.0.2" 2019-01-15' >&2`)
  await expect(requireTools({ maven: false })).rejects.toThrow('java on PATH is version 11; 17 or later is needed')
  await command('java', `echo 'java version "1.8.0_392"' >&2`)
  await expect(requireTools({ maven: false })).rejects.toThrow('version 8;')
})

test('a Java that prints no version is told as such', async () => {
  await command('java', 'exit 1')
  await expect(requireTools({ maven: false })).rejects.toThrow('`java -version` does not answer')
})

test('Java 17 suffices once all jars are in the cache', async () => {
  await command('java', `echo 'openjdk version "17.0.15" 2025-04-15' >&2`)
  await expect(requireTools({ maven: false })).resolves.toBeUndefined()
  await expect(requireTools({ maven: true })).rejects.toThrow('mvn is not on PATH')
})
